"""Which turn a message belongs to, when a turn runs: it joins that turn, waits for one of its own, or takes its place.

The caller holds the session's lock, which orders the decision against the end of the running turn.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import bindparam, desc, func, literal, select, union_all, update
from sqlalchemy.engine import Row

from longhaul.db import turns
from longhaul.db.connection import Connection
from longhaul.db.models import UNFINISHED, MessageRow, SessionRow, TurnRow
from longhaul.errors import SessionBusyError


class OnBusy(StrEnum):
    """What a message wants if a turn of its session runs, or is about to.

    `join`: to be a follow-up of that turn. `queue`: a turn of its own, behind that one and those that wait already.
    `interrupt`: that turn is stopped, and the message begins the next. `rollback`: the same, and the stopped turn is
    taken out of the conversation. `reject`: not to be accepted.
    """

    JOIN = "join"
    QUEUE = "queue"
    INTERRUPT = "interrupt"
    REJECT = "reject"
    ROLLBACK = "rollback"


class OpenTurn(NamedTuple):
    """A turn that messages join. `has_begun`: it has taken its first messages."""

    turn_id: str
    has_begun: bool


class Decision(NamedTuple):
    """The turn of a message. `is_new`: the message begins it. `queued`: it begins when those before it have ended.

    `stops`: the turn that is to be stopped for it; empty: none.
    """

    turn_id: str
    has_begun: bool = False
    is_new: bool = False
    queued: bool = False
    stops: str = ""


_stopped_turn = (
    select(func.coalesce(SessionRow.stopped_turn_id, "")).where(SessionRow.id == bindparam("session")).scalar_subquery()
)
_begun = (
    select(TurnRow.turn_id)
    .where(TurnRow.session_id == bindparam("session"), TurnRow.status.in_(UNFINISHED))
    .order_by(TurnRow.started_at.desc())
    .limit(1)
)
_newest_begun = _begun.subquery()
_is_queued = func.coalesce(MessageRow.queued, False)
# A turn without a row has not begun. A message whose turn ended without it (its workflow is lost) needs another.
_not_begun = (
    select(MessageRow.turn_id)
    .outerjoin(TurnRow, TurnRow.turn_id == MessageRow.turn_id)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.sequence.is_(None),
        MessageRow.turn_id != _stopped_turn,
        TurnRow.turn_id.is_(None),
    )
    .order_by(_is_queued, MessageRow.created_at, MessageRow.id)
    .limit(1)
    .subquery()
)
OPEN_TURN = union_all(
    select(_newest_begun.c.turn_id, literal(1).label("has_begun")).where(_newest_begun.c.turn_id != _stopped_turn),
    select(_not_begun.c.turn_id, literal(0).label("has_begun")),
).order_by(desc("has_begun"))
HIDE_WAITING = (
    update(MessageRow)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.sequence.is_(None),
        MessageRow.turn_id == bindparam("turn"),
    )
    .values(replaced_by=bindparam("turn"))
)
NOTE_ROLLED_BACK = (
    update(SessionRow).where(SessionRow.id == bindparam("session")).values(rolled_back_turn_id=bindparam("turn"))
)


async def open_turn(connection: Connection, session_id: str) -> OpenTurn | None:
    """The turn that a message joins which is accepted now; None: the message begins one.

    It is the turn that has begun, unless a person has stopped that turn; else the turn that begins next, for which
    other messages wait.
    """
    row = (await connection.execute(OPEN_TURN, {"session": session_id})).first()
    return OpenTurn(row.turn_id, bool(row.has_begun)) if row is not None else None


async def decide(connection: Connection, session_id: str, on_busy: OnBusy) -> Decision:
    """The turn of a message that is accepted now. A turn that the message replaces is marked as stopped.

    Raises:
        SessionBusyError: `on_busy` says to reject the message, and a turn runs or is about to.
    """
    running = await open_turn(connection, session_id)
    # A turn that was marked as stopped may run on: the process that marked it may have died before it asked Temporal.
    replaces = on_busy in (OnBusy.INTERRUPT, OnBusy.ROLLBACK)
    marked = await unfinished_turn(connection, session_id) if replaces else ""
    if running is None:
        if on_busy is OnBusy.ROLLBACK and marked:
            await connection.execute(NOTE_ROLLED_BACK, {"session": session_id, "turn": marked})
        return Decision(str(uuid4()), is_new=True, stops=marked)
    joined = Decision(running.turn_id, has_begun=running.has_begun)
    match on_busy:
        case OnBusy.JOIN:
            return joined
        case OnBusy.REJECT:
            raise SessionBusyError(session_id, running.turn_id)
        case OnBusy.QUEUE:
            return Decision(str(uuid4()), is_new=True, queued=True)
    rolls_back = on_busy is OnBusy.ROLLBACK
    if not running.has_begun:  # The message is among the first of that turn; there is nothing to stop.
        if rolls_back:
            await connection.execute(HIDE_WAITING, {"session": session_id, "turn": running.turn_id})
        return joined._replace(stops=marked)
    await turns.mark_stopped(connection, session_id, running.turn_id)
    if rolls_back:
        await connection.execute(NOTE_ROLLED_BACK, {"session": session_id, "turn": running.turn_id})
    return Decision(str(uuid4()), is_new=True, stops=running.turn_id)


async def unfinished_turn(connection: Connection, session_id: str) -> str:
    """The turn of a session that has begun and not ended, also one that is being stopped; empty: none."""
    return await connection.scalar(_begun, {"session": session_id}) or ""


def first_turn(waiting: Iterable[Row[Any]]) -> str:
    """The turn that begins first of those that these rows wait for; they are in the order of acceptance.

    Turns of queued messages begin behind all others.
    """
    rows = sorted(waiting, key=lambda row: bool(row.queued))
    return next((row.turn_id for row in rows if row.turn_id), "")
