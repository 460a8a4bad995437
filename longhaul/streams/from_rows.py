"""A turn's stream without Redis: the same parts, made from rows as they get stored.

Slower (a part shows when its row is there) but never wrong. A client that comes here in the middle first gets what is
open closed and what it saw of an unfinished round voided, then that round again from its rows.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from longhaul.contracts import TurnStatus
from longhaul.db import conversation, turns
from longhaul.db.database import Database
from longhaul.db.messages import StoredMessage
from longhaul.errors import UnavailableError
from longhaul.streams.events import data_part, decoded, start_part, tool_output_part
from longhaul.streams.viewer import Seen

log = logging.getLogger(__name__)
POLL_S = 0.5
ALIVE_EVERY = 4  # polls
NO_RESULT = "This call has no result."

Part = dict[str, Any]


class RowParts:
    """Makes parts out of a turn's rows, given what the client has seen."""

    def __init__(self, seen: Seen, turn_id: str) -> None:
        self._seen = seen
        self._turn_id = turn_id
        self._done = set(seen.rounds_done)
        self._void = list(seen.unfinished)
        self._waiting: list[str] = []

    def opening(self) -> Iterable[Part]:
        """End what is open and void what is not whole."""
        seen = self._seen
        for part_id, kind in list(seen.open_blocks.items()):
            yield {"type": f"{kind}-end", "id": part_id}
        if seen.step_open:
            yield {"type": "finish-step"}
        if seen.unknown:
            yield data_part("voided", {"ids": [], "all": True})
        elif self._void:
            yield data_part("voided", {"ids": self._void})
        if not seen.started:
            yield start_part(self._turn_id)

    def row(self, row: StoredMessage) -> Iterable[Part]:
        """The parts of one row."""
        if row.role in ("reasoning", "assistant"):
            if row.round not in self._done and row.kind != "error":  # the error is said by `closing`
                yield from self._model_row(row)
        elif row.kind == "follow_up" and row.client_message_id not in self._seen.follow_ups:
            yield data_part("follow-up", {"message_id": row.client_message_id, "round": row.round})
        elif row.role == "tool" and row.tool_call_id and (row.round, row.tool_call_id) not in self._seen.outputs:
            yield from self._step(row.round)
            yield tool_output_part(row.tool_call_id, row.content, is_error=row.is_error)
            self._waiting = [call for call in self._waiting if call != row.tool_call_id]
            if not self._waiting:
                yield from self._end_step()

    def _model_row(self, row: StoredMessage) -> Iterable[Part]:
        yield from self._step(row.round)
        if row.content:
            kind, part_id = "reasoning" if row.role == "reasoning" else "text", f"row-{row.id}"
            yield {"type": f"{kind}-start", "id": part_id}
            yield {"type": f"{kind}-delta", "id": part_id, "delta": row.content}
            yield {"type": f"{kind}-end", "id": part_id}
        for call in row.tool_calls or ():
            key = (row.round, call["id"])
            if key not in self._seen.inputs:
                yield {
                    "type": "tool-input-available",
                    "toolCallId": call["id"],
                    "toolName": call["function"]["name"],
                    "input": decoded(call["function"]["arguments"] or "{}"),
                }
            if key not in self._seen.outputs:
                self._waiting.append(call["id"])
        if row.role == "assistant" and not self._waiting:
            yield from self._end_step()

    def _step(self, round_: int | None) -> Iterable[Part]:
        if self._seen.step_open and self._seen.round != round_:
            yield from self._end_step()
        if not self._seen.step_open:
            yield {"type": "start-step"}
            yield data_part("progress", {"round": round_, "status": "running"}, transient=True)

    def _end_step(self) -> Iterable[Part]:
        self._waiting = []
        if self._seen.step_open:
            yield {"type": "finish-step"}

    def closing(self, status: TurnStatus, error: str | None) -> Iterable[Part]:
        """The turn's last parts; calls that were announced by a try whose answer was never stored end here."""
        for round_, call_id in [call for call in self._seen.announced if call not in self._seen.outputs]:
            yield from self._step(round_)
            yield {"type": "tool-output-error", "toolCallId": call_id, "errorText": NO_RESULT}
        yield from self._end_step()
        if not self._seen.outcome:
            if status == TurnStatus.CANCELLED:
                yield {"type": "abort"}
            elif status == TurnStatus.FAILED:
                yield {"type": "error", "errorText": error or turns.WORKFLOW_LOST}
        yield {"type": "finish"}


async def parts_from_rows(
    database: Database, seen: Seen, session_id: str, turn_id: str, alive: Callable[[], Awaitable[bool]]
) -> AsyncIterator[list[bytes]]:
    """Follow a turn by its rows until it has ended; an empty list is yielded when there is nothing new.

    `alive` tells whether Temporal runs this turn; it may raise `UnavailableError`. Nothing that is away ends this:
    whoever watches a turn waits for as long as it does.
    """
    parts = RowParts(seen, turn_id)
    yield [seen.feed_own(part) for part in parts.opening()]
    after, polls, gone = -1, 0, False
    while True:
        found: list[bytes] = []
        try:
            async with database.read() as connection:
                turn = await turns.get(connection, session_id, turn_id)
                rows = await conversation.rows_of_turn(connection, turn_id, after)
            for row in rows:
                found += [seen.feed_own(part) for part in parts.row(row)]
                after = row.sequence
            ended = turn is not None and turn.status.final
            if ended or gone:
                status = turn.status if turn is not None and ended else TurnStatus.FAILED
                error = turn.error if turn is not None else None
                yield found + [seen.feed_own(part) for part in parts.closing(status, error)]
                return
            # Asked before the rows are read once more: a turn that ended in between has stored its end by then.
            if polls % ALIVE_EVERY == ALIVE_EVERY - 1 and not await alive():
                gone = True
        except UnavailableError as error:
            log.warning("turn %s is followed by rows and has to wait: %s", turn_id, error)
        yield found
        polls += 1
        if not gone:
            await asyncio.sleep(POLL_S)
