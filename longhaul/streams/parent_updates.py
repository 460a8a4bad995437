"""What a sub-session does, shown in the stream of the turn that delegated it.

A sub-session's activities write directly to that stream, never through workflow history. Updates may be lost (Redis is
away, the parent's stream is sealed): the tree, the progress and the tool's result say the same.
"""

import logging
from collections.abc import Iterable

from redis.asyncio import Redis

from longhaul.contracts import SUB_STATES, TurnRef, TurnStatus
from longhaul.redis import FAULTS
from longhaul.streams import scripts
from longhaul.streams.events import Part, data_part

log = logging.getLogger(__name__)


class ParentUpdates:
    """Writes to the parent's stream what the parts of the sub-session's own stream mean for the parent."""

    def __init__(self, redis: "Redis", turn: TurnRef, max_bytes: int) -> None:
        self._redis = redis
        self._turn = turn
        self._max_bytes = max_bytes
        self._round = 0

    async def publish(self, parts: Iterable[Part]) -> None:
        """Write the updates that follow from these parts."""
        updates = [update for part in parts if (update := self._update(part))]
        if not updates:
            return
        try:
            await scripts.write(
                self._redis,
                self._turn.parent_turn_id,
                scripts.ActivityAttempt(),
                "",
                self._max_bytes,
                (("", update) for update in updates),
            )
        except FAULTS as error:
            log.debug("turn %s could not update its parent: %s", self._turn.turn_id, error)

    def _update(self, part: Part) -> Part | None:
        turn = {"sub_session_id": self._turn.session_id, "turn_id": self._turn.turn_id}
        if part["type"] == "tool-input-available":
            tool = {"status": TurnStatus.RUNNING, "round": self._round, "tool": part["toolName"]}
            return data_part("sub-session", {"event": "progress", **turn, **tool}, transient=True)
        if part["type"] != "data-progress":
            return None
        status, self._round = TurnStatus(part["data"]["status"]), part["data"]["round"]
        if status.final:
            ended = {"status": SUB_STATES[status], "round": self._round}
            return data_part("sub-session", {"event": "ended", **turn, **ended})
        running = {"status": status, "round": self._round}
        return data_part("sub-session", {"event": "progress", **turn, **running}, transient=True)
