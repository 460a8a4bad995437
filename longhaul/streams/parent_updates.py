"""News of a sub-session in the stream of the turn that delegated it.

They go straight from the sub-session's activities to that stream, never through workflow history. They are news only:
what is lost of them (Redis away, the parent's stream sealed) is told by the tree, by progress and by the tool's result.
"""

import logging
from collections.abc import Iterable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from longhaul.contracts import SUB_STATES, TurnRef, TurnStatus
from longhaul.streams.events import FIELD, data_part, encode, stream_key

log = logging.getLogger(__name__)


class ParentNews:
    """Tells the parent's stream what parts in the sub-session's own stream mean."""

    def __init__(self, redis: "Redis", turn: TurnRef) -> None:
        self._redis = redis
        self._turn = turn
        self._round = 0

    async def tell(self, parts: Iterable[dict[str, Any]]) -> None:
        """Pass on what is news among these parts."""
        news = [found for part in parts if (found := self._news(part))]
        if not news:
            return
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for part in news:
                pipeline.xadd(stream_key(self._turn.parent_turn_id), {FIELD: encode(part)}, nomkstream=True)
            await pipeline.execute(raise_on_error=False)  # a sealed stream takes no more
        except (RedisError, OSError, TimeoutError) as error:
            log.debug("no news of turn %s for its parent: %s", self._turn.turn_id, error)

    def _news(self, part: dict[str, Any]) -> dict[str, Any] | None:
        about = {"sub_session_id": self._turn.session_id, "turn_id": self._turn.turn_id}
        if part["type"] == "tool-input-available":
            doing = {"status": TurnStatus.RUNNING, "round": self._round, "tool": part["toolName"]}
            return data_part("sub-session", {"event": "progress", **about, **doing}, transient=True)
        if part["type"] != "data-progress":
            return None
        status, self._round = TurnStatus(part["data"]["status"]), part["data"]["round"]
        if status.final:
            ended = {"status": SUB_STATES[status], "round": self._round}
            return data_part("sub-session", {"event": "ended", **about, **ended})
        doing = {"status": status, "round": self._round}
        return data_part("sub-session", {"event": "progress", **about, **doing}, transient=True)
