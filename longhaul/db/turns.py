"""Turn rows: how turns began and ended."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, bindparam, exists, func, insert, literal, or_, select, update
from sqlalchemy.engine import Row
from sqlalchemy.orm import InstrumentedAttribute

from longhaul.contracts import Progress, Scope, TurnStatus
from longhaul.db import events, ledger
from longhaul.db.connection import Connection
from longhaul.db.event_tables import EventType
from longhaul.db.messages import replace_unstorable
from longhaul.db.models import UNFINISHED, MessageRow, SessionRow, TurnRow, columns_of
from longhaul.errors import OpenTurn

WORKFLOW_LOST = "The turn ended without a result: its workflow was terminated or could not continue."


class TurnRecord(NamedTuple):
    """A turn. `progress` is the final progress of its workflow as JSON; None while the turn is unfinished.

    `retry_of`: the failed turn that this one took up again.
    """

    turn_id: str
    session_id: str
    user_id: str
    status: TurnStatus
    model: str
    mode: str
    tier: str
    trigger_message_id: str | None
    error: str | None
    progress: dict[str, Any] | None
    started_at: datetime
    ended_at: datetime | None
    duration_ms: int | None
    retry_of: str | None = None


class NewTurn(NamedTuple):
    """A turn that starts."""

    turn_id: str
    session_id: str
    user_id: str
    model: str
    mode: str
    tier: str
    started_at: datetime
    trigger_message_id: str | None = None
    retry_of: str | None = None


class TurnPosition(NamedTuple):
    """A turn's status and the newest round in which the model has answered; 0: none yet."""

    status: TurnStatus
    round: int


class TurnPlace(NamedTuple):
    """A place in a session's turns, which are listed newest first; by id, where they began at the same moment."""

    started_at: datetime
    turn_id: str


class TurnPeriod(NamedTuple):
    """When a turn ran; `ended_at` is None while it runs."""

    started_at: datetime
    ended_at: datetime | None


TURNS = select(*columns_of(TurnRow, TurnRecord))
BY_ID = TURNS.where(TurnRow.session_id == bindparam("session"), TurnRow.turn_id == bindparam("turn"))
OF_SESSION = (
    TURNS.where(TurnRow.session_id == bindparam("session"))
    .order_by(TurnRow.started_at.desc(), TurnRow.turn_id)
    .limit(bindparam("most"))
)
STATUS = select(TurnRow.status).where(TurnRow.turn_id == bindparam("turn"))
POSITION = select(
    TurnRow.status,
    select(func.coalesce(func.max(MessageRow.round), 0))
    .where(MessageRow.turn_id == bindparam("turn"), MessageRow.role == "assistant")
    .scalar_subquery(),
).where(TurnRow.session_id == bindparam("session"), TurnRow.turn_id == bindparam("turn"))
_RUNNING = (
    select(TurnRow.session_id, TurnRow.turn_id, TurnRow.started_at, literal(None, String).label("started_by"))
    .join(SessionRow, SessionRow.id == TurnRow.session_id)
    .where(TurnRow.ended_at.is_(None), SessionRow.id != bindparam("session"))
)
_ABOUT_TO_RUN = (
    select(MessageRow.session_id, MessageRow.turn_id, MessageRow.created_at, SessionRow.parent_session_id)
    .join(SessionRow, SessionRow.id == MessageRow.session_id)
    .where(MessageRow.sequence.is_(None), MessageRow.turn_id.is_not(None), SessionRow.id != bindparam("session"))
)
_NO_SUB_SESSION = SessionRow.parent_session_id.is_(None)
OPEN_OF_USER = _RUNNING.where(TurnRow.user_id == bindparam("user"), _NO_SUB_SESSION).union_all(
    _ABOUT_TO_RUN.where(SessionRow.user_id == bindparam("user"), _NO_SUB_SESSION)
)
_BELOW_ROOT = (SessionRow.root_session_id == bindparam("root"), SessionRow.id != bindparam("root"))
OPEN_BELOW = _RUNNING.where(*_BELOW_ROOT).union_all(_ABOUT_TO_RUN.where(*_BELOW_ROOT))
# A Stop that comes too late, for a turn that has ended, must not replace the mark of the turn that follows.
MARK_STOPPED = (
    update(SessionRow)
    .where(
        SessionRow.id == bindparam("session"),
        ~exists().where(TurnRow.turn_id == bindparam("turn"), TurnRow.status.not_in(UNFINISHED)),
    )
    .values(stopped_turn_id=bindparam("turn"))
)
FAIL_EARLIER = (
    update(TurnRow)
    .where(
        TurnRow.session_id == bindparam("session"),
        TurnRow.turn_id != bindparam("turn"),
        TurnRow.status.in_(UNFINISHED),
    )
    .values(status=TurnStatus.FAILED, error=WORKFLOW_LOST, ended_at=bindparam("now"))
    .returning(TurnRow.turn_id)
)
INSERT = insert(TurnRow)
END = (
    update(TurnRow)
    .where(TurnRow.turn_id == bindparam("turn"), TurnRow.status.in_(UNFINISHED))
    .values(
        status=bindparam("final_status"),
        error=bindparam("final_error"),
        progress=bindparam("final_progress"),
        ended_at=bindparam("at"),
        duration_ms=bindparam("took_ms"),
    )
)


async def start(connection: Connection, turn: NewTurn) -> None:
    """Store a turn's row unless it is stored, and fail earlier turns of its session that never stored their end."""
    lost = {"session": turn.session_id, "turn": turn.turn_id, "now": turn.started_at}
    for turn_id in await connection.scalars(FAIL_EARLIER, lost):
        await ledger.settle_turn(connection, turn.session_id, turn_id)
        await _tell(connection, turn._replace(turn_id=turn_id), TurnStatus.FAILED)
    if await connection.scalar(STATUS, {"turn": turn.turn_id}):
        return
    await connection.execute(INSERT, {**turn._asdict(), "status": TurnStatus.RUNNING})


async def has_ended(connection: Connection, turn_id: str) -> bool:
    """Whether a turn's end is stored."""
    status = await connection.scalar(STATUS, {"turn": turn_id})
    return status is not None and TurnStatus(status).final


async def end(connection: Connection, turn: NewTurn, progress: Progress) -> bool:
    """Store how a turn ended, also when its start was never stored; False when its end is stored already."""
    values = {
        "turn": turn.turn_id,
        "final_status": progress.status,
        "final_error": replace_unstorable(progress.error) if progress.error is not None else None,
        "final_progress": progress.model_dump(mode="json"),
        "at": progress.ended_at,
        "took_ms": progress.duration_ms,
    }
    ended = await connection.execute(END, values)
    if not ended.rowcount and await connection.scalar(STATUS, {"turn": turn.turn_id}) is None:
        await connection.execute(INSERT, {**turn._asdict(), "status": TurnStatus.RUNNING})
        ended = await connection.execute(END, values)
    if ended.rowcount:
        await _tell(connection, turn, progress.status)
    return bool(ended.rowcount)


async def _tell(connection: Connection, turn: NewTurn, status: TurnStatus) -> None:
    """Store the event that a turn has ended."""
    await events.record(
        connection,
        EventType.TURN_ENDED,
        user_id=turn.user_id,
        session_id=turn.session_id,
        turn_id=turn.turn_id,
        details={"status": status},
    )


async def get(connection: Connection, session_id: str, turn_id: str) -> TurnRecord | None:
    """A turn's row, or None."""
    row = (await connection.execute(BY_ID, {"session": session_id, "turn": turn_id})).first()
    return TurnRecord._make(row) if row is not None else None


async def completed_at(connection: Connection, session_id: str, turn_id: str) -> datetime | None:
    """When a turn was completed; None if it has not ended, or has ended in another way."""
    turn = await get(connection, session_id, turn_id)
    return turn.ended_at if turn is not None and turn.status == TurnStatus.COMPLETED else None


async def position(connection: Connection, session_id: str, turn_id: str) -> TurnPosition | None:
    """How far a turn has got by its rows; None while it has no row."""
    row = (await connection.execute(POSITION, {"session": session_id, "turn": turn_id})).first()
    return TurnPosition._make(row) if row is not None else None


async def mark_stopped(connection: Connection, session_id: str, turn_id: str) -> None:
    """Note that a person stopped this turn: messages accepted from now on belong to the next turn."""
    await connection.execute(MARK_STOPPED, {"session": session_id, "turn": turn_id})


async def list_of_session(
    connection: Connection, session_id: str, limit: int = 50, after: TurnPlace | None = None
) -> list[TurnRecord]:
    """A session's turns behind a place in the list, newest first."""
    statement = OF_SESSION
    if after is not None:
        same_moment = (TurnRow.started_at == after.started_at) & (TurnRow.turn_id > after.turn_id)
        statement = statement.where((TurnRow.started_at < after.started_at) | same_moment)
    rows = await connection.execute(statement, {"session": session_id, "most": limit})
    return [TurnRecord._make(row) for row in rows]


async def by_ids(connection: Connection, turn_ids: Collection[str]) -> list[TurnRecord]:
    """The rows of these turns, in no order."""
    rows = await connection.execute(TURNS.where(TurnRow.turn_id.in_(turn_ids)))
    return [TurnRecord._make(row) for row in rows]


async def unfinished(connection: Connection, limit: int) -> list[TurnRecord]:
    """The turns of all users that have not ended, the oldest first."""
    return await _with_status(connection, UNFINISHED, TurnRow.started_at, limit)


async def failed(connection: Connection, limit: int) -> list[TurnRecord]:
    """The turns of all users that failed last, the newest first."""
    return await _with_status(connection, (TurnStatus.FAILED,), TurnRow.ended_at.desc(), limit)


async def _with_status(
    connection: Connection,
    statuses: Sequence[TurnStatus],
    order: ColumnElement[Any] | InstrumentedAttribute[Any],
    limit: int,
) -> list[TurnRecord]:
    statement = TURNS.where(TurnRow.status.in_(statuses)).order_by(order).limit(limit)
    return [TurnRecord._make(row) for row in await connection.execute(statement)]


async def ids_of_sessions(connection: Connection, session_ids: Sequence[str]) -> list[str]:
    """All turns of these sessions."""
    return list(await connection.scalars(select(TurnRow.turn_id).where(TurnRow.session_id.in_(session_ids))))


async def open_of_user(connection: Connection, user_id: str, session_id: str) -> list[OpenTurn]:
    """The turns of a user's other sessions that run or are about to, one for each session, the oldest first.

    Sub-sessions are left out: they have limits of their own.
    """
    return _one_of_each(await connection.execute(OPEN_OF_USER, {"user": user_id, "session": session_id}))


async def open_below(connection: Connection, root_session_id: str, session_id: str) -> list[OpenTurn]:
    """The same of the sub-sessions below a root, except one."""
    return _one_of_each(await connection.execute(OPEN_BELOW, {"root": root_session_id, "session": session_id}))


def _one_of_each(rows: Iterable[Row[Any]]) -> list[OpenTurn]:
    """One turn of each session, the oldest, and the oldest first."""
    found = sorted(map(OpenTurn._make, rows), key=lambda one: one.since)
    return list({one.session_id: one for one in reversed(found)}.values())[::-1]


async def newest(connection: Connection, session_id: str) -> TurnRecord | None:
    """A session's newest turn, or None."""
    return next(iter(await list_of_session(connection, session_id, limit=1)), None)


async def newest_of_each(connection: Connection, session_ids: Sequence[str]) -> dict[str, TurnRecord]:
    """The newest turn of each of these sessions that has had one."""
    ranked = (
        select(
            TurnRow.turn_id,
            func.row_number()
            .over(partition_by=TurnRow.session_id, order_by=(TurnRow.started_at.desc(), TurnRow.turn_id))
            .label("rank"),
        )
        .where(TurnRow.session_id.in_(session_ids))
        .subquery()
    )
    rows = await connection.execute(TURNS.join(ranked, ranked.c.turn_id == TurnRow.turn_id).where(ranked.c.rank == 1))
    return {row.session_id: TurnRecord._make(row) for row in rows}


async def periods_of_subtree(connection: Connection, root_session_id: str, session_id: str) -> list[TurnPeriod]:
    """When the turns of a session and of all sub-sessions below it ran."""
    rows = await connection.execute(
        select(SessionRow.id, SessionRow.scope, TurnRow.started_at, TurnRow.ended_at)
        .join(TurnRow, TurnRow.session_id == SessionRow.id)
        .where(
            or_(SessionRow.id == session_id, SessionRow.root_session_id == root_session_id),
            TurnRow.forked_from.is_(None),
        )
    )
    return [
        TurnPeriod(row.started_at, row.ended_at)
        for row in rows
        if row.id == session_id or session_id in Scope.model_validate(row.scope or {}).ancestors
    ]
