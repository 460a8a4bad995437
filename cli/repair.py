"""Finds out why a session is stuck, and mends it. Everything here may be done twice, and beside a running turn.

What Temporal runs is never touched: a turn that is alive mends and ends itself. Repaired is what only an operator's
hand leaves behind: a workflow that was terminated, a database or a Temporal that was set back to an older state.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy import func, select, update

from api.body import Message
from api.deliver import Kernel
from api.services import Services
from api.status import Live, LiveTurn, from_row
from longhaul import redis, temporal
from longhaul.auth import Authenticator
from longhaul.contracts import TurnStatus
from longhaul.db import conversation, messages, sessions, turns
from longhaul.db.conversation import OpenToolCall
from longhaul.db.database import Connection, Database
from longhaul.db.messages import NewMessage, WaitingMessage, row_id
from longhaul.db.models import MessageRow, SessionRow, utc_now
from longhaul.db.sessions import Session
from longhaul.db.turns import NewTurn, TurnRecord
from longhaul.llm import prompts
from longhaul.settings import Settings
from longhaul.streams.publisher import StreamPublisher

CALLS, TURNS = 100_000, 1_000  # how far back is looked
ERROR = "This turn was ended by hand: its workflow had been terminated or lost. What it had done until then is kept."


@dataclass
class Findings:
    """What is wrong with a session."""

    session: Session
    live: LiveTurn | None
    dead_turns: list[TurnRecord] = field(default_factory=list)
    open_calls: list[OpenToolCall] = field(default_factory=list)
    waiting: list[WaitingMessage] = field(default_factory=list)
    counter_behind: int | None = None

    def explain(self) -> list[str]:
        """Each finding in one line, and what mends it; none: the session is in order."""
        found = [
            f"turn {turn.turn_id} reads as {turn.status} since {turn.started_at:%Y-%m-%d %H:%M:%S} UTC, but Temporal "
            "does not run it: its row is ended as failed, and its stream too"
            for turn in self.dead_turns
        ]
        found += [
            f"tool call {call.id} ({call.name}) of turn {call.turn_id} has no result: it is answered as lost"
            for call in self.open_calls
        ]
        found += [
            f"message {row.client_message_id} of {row.created_at:%Y-%m-%d %H:%M:%S} UTC waits, and no turn knows of "
            "it: it is delivered again"
            for row in self.waiting
        ]
        if self.counter_behind is not None:
            found.append(
                f"its counter is behind its rows, so nothing can be stored: it is set to {self.counter_behind}"
            )
        return found


class Repair:
    """Looks at sessions and mends them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._live = Live(services)
        self._kernel = Kernel(services, self._live)

    async def examine(self, session_id: str) -> Findings:
        """What is wrong with a session.

        Raises:
            NotFoundError: there is no such session.
            UnavailableError: the database or Temporal cannot be reached.
        """
        live = await self._live.running(session_id)
        told = await self._live.query(session_id) if live is not None else None
        known = {message.message_id for message in told.inbox} if told is not None else set()
        async with self._services.database.read() as connection:
            found = Findings(await sessions.get(connection, session_id), live)
            dead = await _unfinished(connection, session_id)
            calls = await conversation.open_tool_calls(connection, session_id, last=CALLS)
            waiting = await messages.list_waiting(connection, session_id)
            found.counter_behind = await _counter_behind(connection, session_id)
        # The next turn may have begun while we looked, so whose rows are nobody's is known only now.
        later = await self._live.running(session_id)
        alive = {turn.turn_id for turn in (live, later) if turn is not None}
        found.dead_turns = [turn for turn in dead if turn.turn_id not in alive]
        found.open_calls = [call for call in calls if call.turn_id not in alive]
        # A live turn that does not answer (no worker, or one that is busy) may know of them: again does no harm.
        found.waiting = [row for row in waiting if row.client_message_id not in known]
        return found

    async def mend(self, found: Findings) -> None:
        """Do what `explain` says, as far as it still holds: a turn may have begun or ended since.

        Raises:
            UnavailableError: the database or Temporal cannot be reached; what was mended until then stays so.
        """
        session_id = found.session.id
        async with self._services.database.write() as connection:
            await messages.lock_session(connection, session_id)
            stated = found.counter_behind is not None
            if stated and (following := await _counter_behind(connection, session_id)) is not None:
                counter = update(SessionRow).where(SessionRow.id == session_id)
                await connection.execute(counter.values(next_sequence=following))
            known = {turn.turn_id for turn in found.dead_turns}
            dead = [turn for turn in await _unfinished(connection, session_id) if turn.turn_id in known]
            unanswered = [(call.turn_id, call.id) for call in found.open_calls]
            rows = [
                messages.tool_row(c.turn_id, c.round, c.id, c.name, prompts.LOST_CALL, is_error=True)
                for c in await conversation.open_tool_calls(connection, session_id, last=CALLS)
                if (c.turn_id, c.id) in unanswered
            ]
            rows += [_error_row(turn) for turn in dead]
            if rows:
                await messages.append(connection, session_id, rows)
            for turn in dead:
                await _end(connection, turn)
        for turn in dead:
            await self._seal(turn)
        for row in found.waiting:
            message = Message(row.client_message_id, row.content, row.context, "fast", "standard")
            await self._kernel.deliver(found.session.user_id, found.session, message)

    async def _seal(self, turn: TurnRecord) -> None:
        settings = self._services.settings
        publisher = StreamPublisher(self._services.redis, turn.turn_id, flush_s=0, published=False)
        async with publisher:
            # Its readers go over to the rows, which say how it ended.
            await publisher.seal(None, settings.stream_ttl)


def _error_row(turn: TurnRecord) -> NewMessage:
    id_ = row_id(turn.turn_id, "error")
    return NewMessage(id_, "assistant", ERROR, kind="error", turn_id=turn.turn_id, is_error=True)


async def _end(connection: Connection, turn: TurnRecord) -> None:
    now = utc_now()
    ended = {
        "status": TurnStatus.FAILED,
        "error": ERROR,
        "ended_at": now,
        "duration_ms": round((now - turn.started_at).total_seconds() * 1000),
    }
    progress = from_row(turn).model_copy(update={**ended, "tools_running": [], "inbox": []})
    started = NewTurn(turn.turn_id, turn.session_id, turn.user_id, turn.model, turn.mode, turn.tier, turn.started_at)
    await turns.end(connection, started, progress)


async def _unfinished(connection: Connection, session_id: str) -> list[TurnRecord]:
    newest = await turns.list_of_session(connection, session_id, limit=TURNS)
    return [turn for turn in newest if not turn.status.final]


async def _counter_behind(connection: Connection, session_id: str) -> int | None:
    """What the counter should be, if it is less. One statement: a turn may append between two."""
    newest = select(func.max(MessageRow.sequence)).where(MessageRow.session_id == session_id, messages.IN_CONVERSATION)
    following = func.coalesce(newest.scalar_subquery() + 1, 0)
    behind = select(following).where(SessionRow.id == session_id, SessionRow.next_sequence < following)
    found: int | None = await connection.scalar(behind)
    return found


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Repair]:
    """A repair with connections of its own."""
    database, streams = Database(settings.sqlalchemy_url, pool_size=2), redis.connect(settings)
    try:
        async with temporal.reachable(settings.temporal_rpc_timeout):
            client = await temporal.connect(settings)
        yield Repair(Services(settings, database, streams, streams, client, Authenticator(settings)))
    finally:
        await streams.aclose()
        await database.close()


__all__ = ["ERROR", "Findings", "Repair", "connected"]
