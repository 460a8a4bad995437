"""Wait for the end of the turn that answers a message, and read the answer from its rows."""

import asyncio
import time
from dataclasses import dataclass

from api.dependencies import Dependencies
from longhaul.contracts import Progress
from longhaul.db import conversation, turns, versions
from longhaul.db.messages import StoredMessage
from longhaul.turns.status import progress_from_row

POLL_FIRST_S, POLL_MAX_S = 0.05, 0.5
#: Polls of the row between two looks at Temporal, which notice a turn whose workflow is lost.
CHECK_RUNNING_EVERY = 20


@dataclass(frozen=True)
class TurnEnd:
    """An ended turn and its rows."""

    progress: Progress
    rows: list[StoredMessage]

    @property
    def text(self) -> str:
        """The last text of the assistant."""
        texts = (row.content for row in reversed(self.rows) if row.role == "assistant" and row.kind != "error")
        return next((text for text in texts if text.strip()), "")

    @property
    def results(self) -> dict[tuple[int | None, str | None], StoredMessage]:
        """The results of its tool calls, by round and call id."""
        return {(row.round, row.tool_call_id): row for row in self.rows if row.role == "tool"}


async def end_of_turn(
    deps: Dependencies, session_id: str, turn_id: str, message_id: str, seconds: float
) -> TurnEnd | None:
    """The end of the turn that takes a message; None if it has not ended within `seconds`, or this process ends.

    `turn_id` is the turn that the message was accepted for. If that one fails before it takes the message, the next one
    answers it.

    Raises:
        UnavailableError: the database is away.
    """
    deadline = time.monotonic() + seconds
    pause, polls = POLL_FIRST_S, 0
    while True:
        async with deps.database.read() as connection:
            found = await versions.of_message(connection, session_id, message_id)
            taken_by = next((row.turn_id for row in found if row.client_message_id == message_id and row.turn_id), None)
            turn_id = taken_by or turn_id
            record = await turns.get(connection, session_id, turn_id)
        progress = progress_from_row(record) if record is not None else None
        if polls % CHECK_RUNNING_EVERY == CHECK_RUNNING_EVERY - 1:
            progress = await deps.turns.progress(session_id, turn_id)
        if progress is not None and progress.status.final:
            async with deps.database.read() as connection:
                return TurnEnd(progress, await conversation.rows_of_turn(connection, turn_id))
        left = deadline - time.monotonic()
        if left <= 0 or deps.closing:
            return None
        await asyncio.sleep(min(pause, left))
        pause, polls = min(pause * 1.5, POLL_MAX_S), polls + 1
