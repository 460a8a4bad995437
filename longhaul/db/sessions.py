"""Sessions and their turns."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, exists, func, insert, or_, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from longhaul.contracts import Progress, TurnRef, TurnStatus, Usage
from longhaul.db.messages import storable
from longhaul.db.models import LedgerRow, MessageRow, SessionRow, TurnRow
from longhaul.errors import NotFoundError

TITLE_MAX = 300
SESSIONS = select(*SessionRow.__table__.columns)
TURNS = select(*TurnRow.__table__.columns)
UNFINISHED = (TurnStatus.RUNNING, TurnStatus.WAITING_FOR_APPROVAL)
OWN = SESSIONS.where(SessionRow.id == bindparam("session"))
TO_POST_TO = select(
    SessionRow.id,
    SessionRow.scope,
    SessionRow.root_session_id,
    or_(
        exists().where(TurnRow.session_id == SessionRow.id, TurnRow.status.in_(UNFINISHED)),
        exists().where(MessageRow.session_id == SessionRow.id, MessageRow.sequence.is_(None)),
    ).label("busy"),
).where(SessionRow.id == bindparam("session"), SessionRow.user_id == bindparam("user"))
TURN_STATUS = select(TurnRow.status).where(TurnRow.turn_id == bindparam("turn"))
BOOKED = select(LedgerRow.id).where(LedgerRow.id == bindparam("entry"))
ENDED_WITHOUT_WORD = "The turn ended without a word; its workflow was terminated or could not go on."


async def create(connection: AsyncConnection, values: dict[str, Any]) -> bool:
    """Store a new session; False when it is there already."""
    if await connection.scalar(select(SessionRow.id).where(SessionRow.id == values["id"])):
        return False
    texts = {name: storable(values[name]) for name in ("title", "system_context") if values.get(name)}
    await connection.execute(insert(SessionRow).values(**{**values, **texts}))
    return True


async def get(connection: AsyncConnection, session_id: str, user_id: str | None = None) -> Row[Any]:
    """A session of a user (None: of anybody).

    Raises:
        NotFoundError: there is none, or it is somebody else's.
    """
    statement = OWN if user_id is None else OWN.where(SessionRow.user_id == user_id)
    found = (await connection.execute(statement, {"session": session_id})).first()
    if found is None:
        raise NotFoundError(f"There is no session {session_id}.")
    return found


async def to_post_to(connection: AsyncConnection, session_id: str, user_id: str) -> Row[Any]:
    """A user's session as one needs it to hand in a message; `busy`: a turn runs or messages wait, as far as rows know.

    Raises:
        NotFoundError: there is none, or it is somebody else's.
    """
    found = (await connection.execute(TO_POST_TO, {"session": session_id, "user": user_id})).first()
    if found is None:
        raise NotFoundError(f"There is no session {session_id}.")
    return found


async def listing(
    connection: AsyncConnection, user_id: str, limit: int, before: datetime | None = None, parent: str | None = None
) -> Sequence[Row[Any]]:
    """A user's sessions, newest first; those of a parent if one is given, else those without a parent."""
    statement = SESSIONS.where(SessionRow.user_id == user_id)
    statement = statement.where(
        SessionRow.parent_session_id == parent if parent else SessionRow.parent_session_id.is_(None)
    )
    if before is not None:
        statement = statement.where(SessionRow.created_at < before)
    found = await connection.execute(statement.order_by(SessionRow.created_at.desc(), SessionRow.id).limit(limit))
    return found.all()


async def rename(connection: AsyncConnection, session_id: str, user_id: str, title: str) -> None:
    """Set a title for good."""
    await get(connection, session_id, user_id)
    await connection.execute(
        update(SessionRow).where(SessionRow.id == session_id).values(title=storable(title)[:TITLE_MAX])
    )


async def name_if_new(connection: AsyncConnection, session_id: str, title: str) -> bool:
    """Give an untitled session a title; False if a person (or an earlier try) has been faster."""
    done = await connection.execute(
        update(SessionRow)
        .where(SessionRow.id == session_id, SessionRow.title.is_(None))
        .values(title=storable(title)[:TITLE_MAX])
    )
    return bool(done.rowcount)


async def remove(connection: AsyncConnection, session_ids: Sequence[str]) -> None:
    """Delete sessions with all their rows; the ledger stays, for it is money."""
    for table in (MessageRow, TurnRow):
        await connection.execute(delete(table).where(table.session_id.in_(session_ids)))
    await connection.execute(delete(SessionRow).where(SessionRow.id.in_(session_ids)))


async def below(connection: AsyncConnection, root_session_id: str) -> Sequence[Row[Any]]:
    """All sub-sessions under a root, parents before children."""
    found = await connection.execute(
        SESSIONS.where(SessionRow.root_session_id == root_session_id, SessionRow.id != root_session_id).order_by(
            SessionRow.created_at, SessionRow.id
        )
    )
    return found.all()


async def start_turn(connection: AsyncConnection, turn: TurnRef, values: dict[str, Any]) -> None:
    """Store a turn's row unless it is there, and end rows of earlier turns that never came to their end."""
    await connection.execute(
        update(TurnRow)
        .where(
            TurnRow.session_id == turn.session_id,
            TurnRow.turn_id != turn.turn_id,
            TurnRow.status.in_((TurnStatus.RUNNING, TurnStatus.WAITING_FOR_APPROVAL)),
        )
        .values(status=TurnStatus.FAILED, error=ENDED_WITHOUT_WORD, ended_at=values["started_at"])
    )
    if await connection.scalar(TURN_STATUS, {"turn": turn.turn_id}):
        return
    await connection.execute(
        insert(TurnRow).values(
            turn_id=turn.turn_id,
            session_id=turn.session_id,
            user_id=turn.user_id,
            status=TurnStatus.RUNNING,
            **values,
        )
    )


async def end_turn(connection: AsyncConnection, progress: Progress, values: dict[str, Any]) -> bool:
    """Store how a turn ended; False when that is stored already."""
    exists = await connection.scalar(TURN_STATUS, {"turn": progress.turn_id})
    final = {
        "status": progress.status,
        "error": storable(progress.error) if progress.error is not None else None,
        "progress": progress.model_dump(mode="json"),
        "ended_at": progress.ended_at,
        "duration_ms": progress.duration_ms,
    }
    if exists is None:
        await connection.execute(
            insert(TurnRow).values(
                turn_id=progress.turn_id,
                session_id=progress.session_id,
                started_at=progress.started_at,
                **values,
                **final,
            )
        )
        return True
    if TurnStatus(exists).final:
        return False
    await connection.execute(update(TurnRow).where(TurnRow.turn_id == progress.turn_id).values(**final))
    return True


async def get_turn(connection: AsyncConnection, session_id: str, turn_id: str) -> Row[Any] | None:
    """A turn's row, or None."""
    found = await connection.execute(TURNS.where(TurnRow.session_id == session_id, TurnRow.turn_id == turn_id))
    return found.first()


async def standing(connection: AsyncConnection, session_id: str, turn_id: str) -> tuple[TurnStatus, int] | None:
    """A turn's status and the newest round that the model has answered in; None while it has no row."""
    newest = (
        select(func.max(MessageRow.round))
        .where(MessageRow.turn_id == turn_id, MessageRow.role == "assistant")
        .scalar_subquery()
    )
    found = await connection.execute(
        select(TurnRow.status, newest).where(TurnRow.session_id == session_id, TurnRow.turn_id == turn_id)
    )
    row = found.first()
    return (TurnStatus(row[0]), row[1] or 0) if row is not None else None


async def turns(connection: AsyncConnection, session_id: str, limit: int = 50) -> Sequence[Row[Any]]:
    """A session's turns, newest first."""
    found = await connection.execute(
        TURNS.where(TurnRow.session_id == session_id).order_by(TurnRow.started_at.desc(), TurnRow.turn_id).limit(limit)
    )
    return found.all()


async def newest_turns(connection: AsyncConnection, session_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """The newest turn of each of these sessions that has had one."""
    newest = (
        select(
            TurnRow.turn_id,
            func.row_number()
            .over(partition_by=TurnRow.session_id, order_by=(TurnRow.started_at.desc(), TurnRow.turn_id))
            .label("place"),
        )
        .where(TurnRow.session_id.in_(session_ids))
        .subquery()
    )
    found = await connection.execute(TURNS.join(newest, newest.c.turn_id == TurnRow.turn_id).where(newest.c.place == 1))
    return {row.session_id: row for row in found}


async def book(connection: AsyncConnection, values: dict[str, Any]) -> None:
    """Enter one model call into the ledger, once."""
    if not await connection.scalar(BOOKED, {"entry": values["id"]}):
        await connection.execute(insert(LedgerRow), values)


async def spent(connection: AsyncConnection, session_ids: Sequence[str]) -> dict[str, Usage]:
    """What each of these sessions has used, from the ledger."""
    ledger = LedgerRow
    found = await connection.execute(
        select(
            ledger.session_id,
            func.count().label("calls"),
            func.sum(ledger.prompt_tokens).label("prompt_tokens"),
            func.sum(ledger.completion_tokens).label("completion_tokens"),
            func.sum(ledger.reasoning_tokens).label("reasoning_tokens"),
            func.sum(ledger.cached_tokens).label("cached_tokens"),
            func.sum(ledger.cost_microdollars).label("cost_microdollars"),
        )
        .where(ledger.session_id.in_(session_ids))
        .group_by(ledger.session_id)
    )
    return {
        row["session_id"]: Usage.model_validate({name: value for name, value in row.items() if name != "session_id"})
        for row in found.mappings()
    }
