"""Check what must hold of the rows of any session while no turn of it runs."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.engine import Row
from sqlalchemy.orm import InstrumentedAttribute

from longhaul.contracts import TurnStatus
from longhaul.db.database import Database
from longhaul.db.models import LedgerRow, LedgerStatus, MessageRow, SessionRow, TurnRow
from longhaul.streams.events import tool_output_part
from testkit.streamlog import StreamLog


@dataclass(frozen=True)
class Stored:
    """All rows of some sessions, read at one moment."""

    messages: Mapping[str, Sequence[Row[Any]]]
    turns: Mapping[str, Sequence[Row[Any]]]
    ledger: Sequence[Row[Any]]
    next_sequences: Mapping[str, int]

    def of(self, session: str, *roles: str) -> list[Row[Any]]:
        """A session's placed rows of these roles (of all, if none is named), in their order."""
        rows = [row for row in self.messages.get(session, ()) if row.sequence is not None]
        return [row for row in rows if not roles or row.role in roles]


async def stored(database: Database, sessions: Iterable[str] | None = None) -> Stored:
    """Read the rows of these sessions (of all, if none are named)."""
    wanted = list(sessions) if sessions is not None else None

    def of(column: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        return column.in_(wanted) if wanted is not None else true()

    messages: dict[str, list[Row[Any]]] = defaultdict(list)
    turns: dict[str, list[Row[Any]]] = defaultdict(list)
    rows = select(*MessageRow.__table__.columns).where(of(MessageRow.session_id)).order_by(MessageRow.sequence)
    ends = select(*TurnRow.__table__.columns).where(of(TurnRow.session_id)).order_by(TurnRow.started_at)
    counters = select(SessionRow.id, SessionRow.next_sequence).where(of(SessionRow.id))
    async with database.read() as connection:
        for row in await connection.execute(rows):
            messages[row.session_id].append(row)
        for row in await connection.execute(ends):
            turns[row.session_id].append(row)
        of_sessions = select(*LedgerRow.__table__.columns).where(of(LedgerRow.session_id))
        ledger = await connection.execute(of_sessions.order_by(LedgerRow.created_at))
        numbers = {row.id: row.next_sequence for row in await connection.execute(counters)}
    return Stored(messages, turns, ledger, numbers)


def sequence_problems(session: str, rows: Sequence[Row[Any]], following: int | None) -> Iterable[str]:
    """Sequences from 0 without a gap, client ids once, nothing left waiting."""
    sequences = [row.sequence for row in rows if row.sequence is not None]
    if sequences != list(range(len(sequences))):
        yield f"{session}: sequences are not gapless from 0: {sequences[:50]}"
    if following is not None and following != len(sequences):
        yield f"{session}: its counter says {following}, it has {len(sequences)} rows"
    for client_id, times in Counter(row.client_message_id for row in rows if row.client_message_id).items():
        if times > 1:
            yield f"{session}: message {client_id} is stored {times} times"
    for row in rows:
        if row.sequence is None:
            yield f"{session}: message {row.client_message_id} still waits"


def answer_problems(session: str, rows: Sequence[Row[Any]]) -> Iterable[str]:
    """Every message of a person has an answer behind it, in the turn that took it."""
    last: dict[str | None, int] = {}
    for row in rows:
        if row.role == "assistant" and row.sequence is not None:
            last[row.turn_id] = row.sequence
    for row in rows:
        if row.role == "user" and row.sequence is not None and row.sequence > last.get(row.turn_id, -1):
            yield f"{session}: message {row.client_message_id} at {row.sequence} has no answer behind it in its turn"


def tool_problems(session: str, rows: Sequence[Row[Any]]) -> Iterable[str]:
    """Every tool call has exactly one result behind it, every result a call."""
    called = Counter(
        (row.turn_id, row.round, call["id"]) for row in rows if row.role == "assistant" for call in row.tool_calls or ()
    )
    given = Counter((row.turn_id, row.round, row.tool_call_id) for row in rows if row.role == "tool")
    for key in called | given:
        if (called[key], given[key]) != (1, 1):
            yield f"{session}: tool call {key} is stored {called[key]} times and has {given[key]} results"


def turn_problems(session: str, rows: Sequence[Row[Any]], turns: Sequence[Row[Any]]) -> Iterable[str]:
    """Turns one after another, all at an end, and the rows of each in one piece."""
    for turn in turns:
        if not TurnStatus(turn.status).final or turn.ended_at is None:
            yield f"{session}: turn {turn.turn_id} is left {turn.status}"
    for earlier, later in itertools.pairwise(turns):
        if earlier.ended_at is not None and earlier.ended_at > later.started_at:
            yield (
                f"{session}: turn {earlier.turn_id} ({earlier.status}, {earlier.error}) ended at {earlier.ended_at}, "
                f"turn {later.turn_id} began at {later.started_at}"
            )
    order = [row.turn_id for row in rows if row.sequence is not None and row.turn_id]
    pieces = [turn for index, turn in enumerate(order) if index == 0 or order[index - 1] != turn]
    for turn_id, times in Counter(pieces).items():
        if times > 1:
            yield f"{session}: the rows of turn {turn_id} lie in {times} pieces"
    for turn_id in set(order) - {turn.turn_id for turn in turns}:
        yield f"{session}: rows of turn {turn_id}, which has no row of its own"


def shown_problems(log: StreamLog, rows: Sequence[Row[Any]], status: str) -> Iterable[str]:
    """A stream that was read to its end shows what the rows of its turn say, and how the turn ended."""
    answers = [row for row in rows if row.kind != "error"]
    for shown, role in ((log.text(), "assistant"), (log.reasoning(), "reasoning")):
        stored = "".join(row.content for row in answers if row.role == role)
        if shown != stored:
            yield f"{role} is {shown[:200]!r} on the stream, {stored[:200]!r} in its rows"
    outputs = log.outputs()
    for row in rows:
        if row.role == "tool":
            shown_output = outputs.get(row.tool_call_id)
            if shown_output != tool_output_part(row.tool_call_id, row.content, is_error=row.is_error):
                said = f"gave {row.content[:200]!r}, shown is {str(shown_output)[:200]}"
                yield f"call {row.tool_call_id} {said}"
    taken = {part["data"]["message_id"] for part in log.parts("data-follow-up")}
    for row in rows:
        if row.kind == "follow_up" and row.client_message_id not in taken:
            yield f"the follow-up {row.client_message_id} is not shown"
    outcomes = [kind for kind in log.types if kind in ("abort", "error")]
    if outcomes[-1:] != {"cancelled": ["abort"], "failed": ["error"], "completed": []}.get(status):
        yield f"the turn is {status}, shown is {outcomes}"


def ledger_problems(ledger: Sequence[Row[Any]]) -> Iterable[str]:
    """One row for each attempt at a call, and no reservation that outlives it."""
    for row in ledger:
        if row.status == LedgerStatus.RESERVED:
            yield f"ledger: the reservation of {row.turn_id}, round {row.round}, attempt {row.attempt} is left"
    for key, times in Counter((row.turn_id, row.round, row.attempt, row.kind) for row in ledger).items():
        if times > 1:
            yield f"ledger: {key} is booked {times} times"


async def check_rows(
    database: Database,
    accepted: Mapping[str, Iterable[str]] | None = None,
    *,
    sessions: Iterable[str] | None = None,
    answered: bool = True,
) -> Stored:
    """Run all checks of this file.

    Args:
        accepted: ids of all messages that the API accepted, by session: exactly these must be there.
        sessions: check only these; without it those of `accepted`, else all.
        answered: also that each message has an answer behind it (a stopped turn may leave one without).

    Raises:
        AssertionError: names everything that does not hold.
    """
    found = await stored(database, sessions if sessions is not None else accepted)
    problems: list[str] = []
    for session in {*found.messages, *found.turns}:
        rows, turns = found.messages.get(session, ()), found.turns.get(session, ())
        problems += sequence_problems(session, rows, found.next_sequences.get(session))
        problems += tool_problems(session, rows)
        problems += turn_problems(session, rows, turns)
        if answered:
            problems += answer_problems(session, rows)
    problems += ledger_problems(found.ledger)
    for session, ids in (accepted or {}).items():
        here = {row.client_message_id for row in found.messages.get(session, ()) if row.client_message_id}
        problems += [f"{session}: message {lost} was accepted and is lost" for lost in set(ids) - here]
        problems += [f"{session}: message {extra} was not accepted and is here" for extra in here - set(ids)]
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:30])
    return found
