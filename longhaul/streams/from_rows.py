"""A turn's stream without Redis: the same parts, made from rows as they get stored.

This is slower (a part shows when its row is stored) but always right. A client that changes over in the middle first
gets what is open closed and what it saw of an unfinished round voided, then that round again from its rows.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial

from longhaul.contracts import PLAN_TOOL, SHARE_TOOL, TurnStatus
from longhaul.db import conversation, parked, turns
from longhaul.db.database import Database
from longhaul.db.messages import StoredMessage
from longhaul.db.parked import ParkedRow
from longhaul.db.turns import TurnRecord
from longhaul.errors import UnavailableError
from longhaul.streams.blocks import blocks_of_rows, end_part
from longhaul.streams.events import (
    Part,
    approval_part,
    compaction_part,
    data_part,
    decoded,
    plan_part,
    shared_file_part,
    start_part,
    tool_output_part,
    usage_part,
)
from longhaul.streams.looks import SharedLooks
from longhaul.streams.viewer import ViewerState

log = logging.getLogger(__name__)
POLL_S = 0.5
CHECK_RUNNING_EVERY = 4  # polls
NO_RESULT = "This call has no result."


class RowParts:
    """Makes parts out of a turn's rows, for a client that is in the state `state`."""

    def __init__(self, state: ViewerState, turn_id: str) -> None:
        self._state = state
        self._turn_id = turn_id
        self._rounds_done = set(state.rounds_done)
        self._unfinished = list(state.unfinished)
        self._unanswered: list[str] = []
        self._thoughts: list[StoredMessage] = []

    def opening(self) -> Iterable[Part]:
        """End what is open and void what is not whole."""
        state = self._state
        for part_id, kind in list(state.open_blocks.items()):
            yield {"type": f"{kind}-end", "id": part_id}
        if self._unfinished:
            yield data_part("voided", {"ids": self._unfinished})
        if state.step_open:
            yield {"type": "finish-step"}
        if not state.started:
            yield start_part(self._turn_id)

    def row(self, row: StoredMessage) -> Iterable[Part]:
        """The parts of one row."""
        if row.role in ("reasoning", "assistant"):
            if row.round not in self._rounds_done and row.kind != "error":  # `closing` shows the error
                yield from self._model_row(row)
        elif row.kind == "follow_up" and row.client_message_id not in self._state.follow_ups:
            yield data_part("follow-up", {"message_id": row.client_message_id, "round": row.round})
        elif row.kind == "summary" and row.id not in self._state.compactions:
            yield compaction_part(row.id, row.round, row.context)
        elif row.role == "tool" and row.tool_call_id and (row.round, row.tool_call_id) not in self._state.outputs:
            yield from self._step(row.round)
            if row.tool_name == PLAN_TOOL and not row.is_error and (plan := plan_part(row.content)):
                yield plan
            if row.tool_name == SHARE_TOOL and not row.is_error and (file := shared_file_part(row.content)):
                yield file
            yield tool_output_part(row.tool_call_id, row.content, is_error=row.is_error)
            self._unanswered = [call for call in self._unanswered if call != row.tool_call_id]
            if not self._unanswered:
                yield from self._end_step()

    def approvals(self, rows: Iterable[ParkedRow]) -> Iterable[Part]:
        """Calls that wait for a person or a client, and those that did."""
        for row in rows:
            if (row.id, row.status) not in self._state.approvals:
                yield approval_part(row)

    def _model_row(self, row: StoredMessage) -> Iterable[Part]:
        """An answer. Its reasoning rows come right before it, and stand between parts of its text."""
        if row.role == "reasoning":
            self._thoughts.append(row)
            return
        yield from self._step(row.round)
        for number, block in enumerate(blocks_of_rows(self._thoughts, row)):
            part_id = f"row-{row.id}.{number}"
            yield {"type": f"{block.kind}-start", "id": part_id}
            yield {"type": f"{block.kind}-delta", "id": part_id, "delta": block.text}
            yield end_part(block.kind, part_id, block.duration_ms)
        self._thoughts = []
        for call in row.tool_calls or ():
            key = (row.round, call["id"])
            if key not in self._state.inputs:
                yield {
                    "type": "tool-input-available",
                    "toolCallId": call["id"],
                    "toolName": call["function"]["name"],
                    "input": decoded(call["function"]["arguments"] or "{}"),
                }
            if key not in self._state.outputs:
                self._unanswered.append(call["id"])
        if row.kind == "message" and row.usage is not None:
            yield usage_part(row.usage, row.model)
        if not self._unanswered:
            yield from self._end_step()

    def _step(self, round_: int | None) -> Iterable[Part]:
        if self._state.step_open and self._state.round != round_:
            yield from self._end_step()
        if not self._state.step_open:
            yield {"type": "start-step"}
            yield data_part("progress", {"round": round_, "status": "running"}, transient=True)

    def _end_step(self) -> Iterable[Part]:
        self._unanswered = []
        if self._state.step_open:
            yield {"type": "finish-step"}

    def closing(self, status: TurnStatus, error: str | None) -> Iterable[Part]:
        """The turn's last parts; announced calls of an attempt whose answer was never stored end here."""
        for round_, call_id in [call for call in self._state.announced if call not in self._state.outputs]:
            yield from self._step(round_)
            yield {"type": "tool-output-error", "toolCallId": call_id, "errorText": NO_RESULT}
        yield from self._end_step()
        if not self._state.outcome and (outcome := outcome_part(status, error)) is not None:
            yield outcome
        yield {"type": "finish"}


def outcome_part(status: TurnStatus, error: str | None) -> Part | None:
    """The part that says that a turn was stopped or failed; None for a completed one."""
    if status is TurnStatus.CANCELLED:
        return {"type": "abort"}
    if status is TurnStatus.FAILED:
        return {"type": "error", "errorText": error or turns.WORKFLOW_LOST}
    return None


async def parts_from_rows(
    database: Database,
    looks: SharedLooks,
    state: ViewerState,
    session_id: str,
    turn_id: str,
    runs: Callable[[], Awaitable[bool]],
) -> AsyncIterator[list[bytes]]:
    """Follow a turn by its rows until it has ended; an empty list is yielded while nothing is new.

    `runs` says whether Temporal runs this turn; it may raise `UnavailableError`. An absent database or Temporal does
    not end this: a client may watch a turn for as long as it wants. Viewers of this turn share their `looks`.
    """
    parts = RowParts(state, turn_id)
    yield [state.note_and_encode(part) for part in parts.opening()]
    after, polls, gone = -1, 0, False
    asked_at = 0.0
    while True:
        encoded: list[bytes] = []
        try:
            turn, rows, approvals = await looks.look(
                ("rows", after),
                partial(_stored, database, session_id, turn_id, after),
                since=asked_at if gone else time.monotonic() - POLL_S,
            )
            for row in rows:
                encoded += [state.note_and_encode(part) for part in parts.row(row)]
                if row.role == "assistant":  # before the results of its calls, as in the stream
                    asked = [one for one in approvals if one.round == row.round]
                    encoded += [state.note_and_encode(part) for part in parts.approvals(asked)]
                after = row.sequence
            encoded += [state.note_and_encode(part) for part in parts.approvals(approvals)]
            ended = turn is not None and turn.status.final
            if ended or gone:
                status = turn.status if turn is not None and ended else TurnStatus.FAILED
                error = turn.error if turn is not None else None
                yield encoded + [state.note_and_encode(part) for part in parts.closing(status, error)]
                return
            # Asked before the rows are read once more: a turn that ended in between has stored its end by then.
            if polls % CHECK_RUNNING_EVERY == CHECK_RUNNING_EVERY - 1:
                gone = not await looks.look("runs", runs, since=time.monotonic() - POLL_S)
                asked_at = time.monotonic()
        except UnavailableError as error:
            log.warning("turn %s is followed by rows and has to wait: %s", turn_id, error)
        yield encoded
        polls += 1
        if not gone:
            await asyncio.sleep(POLL_S)


async def _stored(
    database: Database, session_id: str, turn_id: str, after: int
) -> tuple[TurnRecord | None, list[StoredMessage], list[ParkedRow]]:
    async with database.read() as connection:
        turn = await turns.get(connection, session_id, turn_id)
        rows = await conversation.rows_of_turn(connection, turn_id, after)
        return turn, rows, await parked.of_turn(connection, turn_id)
