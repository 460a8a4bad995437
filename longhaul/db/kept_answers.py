"""Answers to requests that had an idempotency key: the same request again gets the same answer, and is done once."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.models import KeptAnswerRow, columns_of, utc_now

#: So long an answer is kept.
KEPT_FOR = timedelta(hours=24)
#: A request that has no answer after so long was cut off: its process has died.
CUT_OFF_AFTER = timedelta(seconds=60)


class KeptAnswer(NamedTuple):
    """What is known of a key. `request`: what tells its request from others. `status` is None while it is handled."""

    request: str
    status: int | None
    headers: dict[str, Any] | None
    body: bytes | None
    created_at: datetime


async def claim(database: Database, user_id: str, key: str, request: str) -> KeptAnswer | None:
    """Begin a request; None: it is to be handled. Else what is known of the one that had this key before."""
    now = utc_now()
    try:
        async with database.write() as connection:
            await connection.execute(
                delete(KeptAnswerRow).where(KeptAnswerRow.user_id == user_id, KeptAnswerRow.created_at < now - KEPT_FOR)
            )
            values = {"user_id": user_id, "key": key, "request": request, "created_at": now}
            if await _get(connection, user_id, key) is None:
                await connection.execute(insert(KeptAnswerRow), values)
                return None
    except IntegrityError:
        pass  # another request has begun with this key at the same moment
    async with database.write() as connection:
        known = await _get(connection, user_id, key)
        if known is None or known.status is not None or known.created_at > now - CUT_OFF_AFTER:
            return known or KeptAnswer(request, None, None, None, now)
        taken_over = (
            update(KeptAnswerRow)
            .where(*_of(user_id, key), KeptAnswerRow.status.is_(None), KeptAnswerRow.created_at == known.created_at)
            .values(created_at=now)
        )
        is_ours = known.request == request and (await connection.execute(taken_over)).rowcount
    return None if is_ours else known


async def keep(
    database: Database, user_id: str, key: str, *, status: int, headers: dict[str, str], body: bytes
) -> None:
    """Keep the answer of a request that was begun."""
    async with database.write() as connection:
        values = {"status": status, "headers": headers, "body": body}
        await connection.execute(update(KeptAnswerRow).where(*_of(user_id, key)).values(values))


async def release(database: Database, user_id: str, key: str) -> None:
    """Forget a request that was begun: it has changed nothing, so it may be made again."""
    async with database.write() as connection:
        await connection.execute(delete(KeptAnswerRow).where(*_of(user_id, key), KeptAnswerRow.status.is_(None)))


async def forget(connection: Connection) -> None:
    """Forget answers that were kept for long enough."""
    await connection.execute(delete(KeptAnswerRow).where(KeptAnswerRow.created_at < utc_now() - KEPT_FOR))


async def _get(connection: Connection, user_id: str, key: str) -> KeptAnswer | None:
    statement = select(*columns_of(KeptAnswerRow, KeptAnswer)).where(*_of(user_id, key))
    row = (await connection.execute(statement)).first()
    return KeptAnswer._make(row) if row is not None else None


def _of(user_id: str, key: str) -> tuple[Any, Any]:
    return KeptAnswerRow.user_id == user_id, KeptAnswerRow.key == key
