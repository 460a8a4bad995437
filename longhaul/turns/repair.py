"""Find out why a session is stuck, and repair it. Repairing twice, or beside a running turn, does no harm.

A turn that Temporal runs is never touched: it repairs and ends itself. What is repaired is left behind by operators: a
workflow that was terminated, a database or a Temporal that was restored to an older state.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis.asyncio import Redis
from sqlalchemy import func, select, update
from temporalio.client import Client

from longhaul import redis, temporal
from longhaul.contracts import TurnStatus
from longhaul.db import acceptance, conversation, ledger, messages, sessions, turns
from longhaul.db.acceptance import WaitingMessage
from longhaul.db.connection import Connection
from longhaul.db.conversation import OpenToolCall
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage, row_id
from longhaul.db.models import MessageRow, SessionRow, utc_now
from longhaul.db.sessions import Session
from longhaul.db.turns import NewTurn, TurnRecord
from longhaul.llm import prompts
from longhaul.settings import Settings
from longhaul.streams.publisher import StreamPublisher
from longhaul.turns.deliver import IncomingMessage, MessageDelivery
from longhaul.turns.status import RunningTurn, TurnLookup, progress_from_row

MAX_CALLS, MAX_TURNS = 100_000, 1_000  # How many of the newest rows are examined.
ERROR = "This turn was ended by hand: its workflow had been terminated or lost. What it had done until then is kept."


@dataclass
class Findings:
    """What is wrong with a session."""

    session: Session
    running: RunningTurn | None
    dead_turns: list[TurnRecord] = field(default_factory=list)
    open_calls: list[OpenToolCall] = field(default_factory=list)
    waiting: list[WaitingMessage] = field(default_factory=list)
    counter_behind: int | None = None

    def explain(self) -> list[str]:
        """Each problem and its repair in one line; an empty list: the session is in order."""
        lines = [
            f"turn {turn.turn_id} reads as {turn.status} since {turn.started_at:%Y-%m-%d %H:%M:%S} UTC, but Temporal "
            "does not run it: its row is ended as failed, and its stream too"
            for turn in self.dead_turns
        ]
        lines += [
            f"tool call {call.id} ({call.name}) of turn {call.turn_id} has no result: it is answered as lost"
            for call in self.open_calls
        ]
        lines += [
            f"message {row.client_message_id} of {row.created_at:%Y-%m-%d %H:%M:%S} UTC waits, and no turn knows of "
            "it: it is delivered again"
            for row in self.waiting
        ]
        if self.counter_behind is not None:
            lines.append(
                f"its counter is behind its rows, so nothing can be stored: it is set to {self.counter_behind}"
            )
        return lines


class Repair:
    """Examines sessions and repairs them."""

    def __init__(self, settings: Settings, database: Database, streams: "Redis", client: Client) -> None:
        self._database = database
        self._streams = streams
        self._turns = TurnLookup(database, client, settings.temporal_rpc_timeout)
        self._delivery = MessageDelivery(settings, database, client, self._turns)

    async def examine(self, session_id: str) -> Findings:
        """What is wrong with a session.

        Raises:
            NotFoundError: there is no such session.
            UnavailableError: the database or Temporal cannot be reached.
        """
        running = await self._turns.running(session_id)
        progress = await self._turns.query(session_id) if running is not None else None
        in_inbox = {message.message_id for message in progress.inbox} if progress is not None else set()
        async with self._database.read() as connection:
            findings = Findings(await sessions.get(connection, session_id), running)
            unended = await _unfinished(connection, session_id)
            calls = await conversation.open_tool_calls(connection, session_id, last=MAX_CALLS)
            waiting = await acceptance.list_waiting(connection, session_id)
            findings.counter_behind = await _counter_behind(connection, session_id)
        # The next turn may have begun in the meantime. Its rows are in order.
        running_later = await self._turns.running(session_id)
        alive = {turn.turn_id for turn in (running, running_later) if turn is not None}
        findings.dead_turns = [turn for turn in unended if turn.turn_id not in alive]
        findings.open_calls = [call for call in calls if call.turn_id not in alive]
        # A running turn that does not answer (no worker, or a busy one) may know them. Delivering twice does no harm.
        findings.waiting = [row for row in waiting if row.client_message_id not in in_inbox]
        return findings

    async def repair(self, findings: Findings) -> None:
        """Do what `explain` says, as far as it still applies: a turn may have begun or ended since.

        Raises:
            UnavailableError: the database or Temporal cannot be reached; what was repaired until then stays so.
        """
        session_id = findings.session.id
        async with self._database.write() as connection:
            await messages.lock_session(connection, session_id)
            examined = findings.counter_behind is not None
            if examined and (following := await _counter_behind(connection, session_id)) is not None:
                counter = update(SessionRow).where(SessionRow.id == session_id)
                await connection.execute(counter.values(next_sequence=following))
            dead_ids = {turn.turn_id for turn in findings.dead_turns}
            unended = await _unfinished(connection, session_id)
            dead = [turn for turn in unended if turn.turn_id in dead_ids]
            unanswered = [(call.turn_id, call.id) for call in findings.open_calls]
            rows = [
                messages.tool_row(c.turn_id, c.round, c.id, c.name, prompts.LOST_CALL, is_error=True)
                for c in await conversation.open_tool_calls(connection, session_id, last=MAX_CALLS)
                if (c.turn_id, c.id) in unanswered
            ]
            rows += [_error_row(turn) for turn in dead]
            if rows:
                await messages.append(connection, session_id, rows)
            for turn in dead:
                await _end(connection, turn)
        for turn in dead:
            await self._withdraw_stream(turn)
        for row in findings.waiting:
            message = IncomingMessage.of_row(row)
            await self._delivery.deliver(findings.session.user_id, findings.session, message)

    async def _withdraw_stream(self, turn: TurnRecord) -> None:
        async with StreamPublisher(self._streams, turn.turn_id, flush_s=0) as publisher:
            # Its readers switch to the rows, which say how it ended.
            await publisher.withdraw()


def _error_row(turn: TurnRecord) -> NewMessage:
    return NewMessage(
        row_id(turn.turn_id, "error"), "assistant", ERROR, kind="error", turn_id=turn.turn_id, is_error=True
    )


async def _end(connection: Connection, turn: TurnRecord) -> None:
    now = utc_now()
    ended = {
        "status": TurnStatus.FAILED,
        "error": ERROR,
        "ended_at": now,
        "duration_ms": round((now - turn.started_at).total_seconds() * 1000),
    }
    progress = progress_from_row(turn).model_copy(update={**ended, "tools_running": [], "inbox": []})
    started = NewTurn(turn.turn_id, turn.session_id, turn.user_id, turn.model, turn.mode, turn.tier, turn.started_at)
    await turns.end(connection, started, progress)
    await ledger.settle_turn(connection, turn.session_id, turn.turn_id)


async def _unfinished(connection: Connection, session_id: str) -> list[TurnRecord]:
    newest = await turns.list_of_session(connection, session_id, limit=MAX_TURNS)
    return [turn for turn in newest if not turn.status.final]


async def _counter_behind(connection: Connection, session_id: str) -> int | None:
    """The counter's correct value if it is too low. One statement, because a turn may append between two."""
    newest = select(func.max(MessageRow.sequence)).where(MessageRow.session_id == session_id, messages.IN_CONVERSATION)
    following = func.coalesce(newest.scalar_subquery() + 1, 0)
    behind = select(following).where(SessionRow.id == session_id, SessionRow.next_sequence < following)
    correct: int | None = await connection.scalar(behind)
    return correct


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Repair]:
    """A repair with connections of its own."""
    database, streams = Database(settings.sqlalchemy_url, pool_size=2), redis.connect(settings)
    try:
        async with temporal.reachable(settings.temporal_rpc_timeout):
            client = await temporal.connect(settings)
        yield Repair(settings, database, streams, client)
    finally:
        await streams.aclose()
        await database.close()
