"""Read-only links to sessions: make, list, revoke, and find the session that a link shows."""

import secrets
from datetime import datetime
from typing import NamedTuple
from uuid import uuid4

from sqlalchemy import delete, insert, or_, select, tuple_

from longhaul.db.connection import Connection
from longhaul.db.models import ShareRow, columns_of, utc_now
from longhaul.errors import NotFoundError

#: Of a token. It has 256 bits, so it cannot be guessed.
TOKEN_BYTES = 32


class Share(NamedTuple):
    """A link to a session. `user_id`: who owns the session and has made the link."""

    id: str
    session_id: str
    user_id: str
    token: str
    created_at: datetime
    expires_at: datetime | None


class SharePosition(NamedTuple):
    """A place in a session's links, which are listed newest first."""

    created_at: datetime
    id: str


SHARES = select(*columns_of(ShareRow, Share))


async def create(connection: Connection, session_id: str, user_id: str, expires_at: datetime | None) -> Share:
    """Make a link."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    share = Share(str(uuid4()), session_id, user_id, token, utc_now(), expires_at)
    await connection.execute(insert(ShareRow), share._asdict())
    return share


async def list_of_session(
    connection: Connection, session_id: str, limit: int, after: SharePosition | None = None
) -> list[Share]:
    """The links of a session, newest first, expired ones too."""
    statement = SHARES.where(ShareRow.session_id == session_id)
    if after is not None:
        statement = statement.where(tuple_(ShareRow.created_at, ShareRow.id) < tuple(after))
    statement = statement.order_by(ShareRow.created_at.desc(), ShareRow.id.desc()).limit(limit)
    return [Share._make(row) for row in await connection.execute(statement)]


async def revoke(connection: Connection, session_id: str, share_id: str) -> None:
    """Revoke a link of a session.

    Raises:
        NotFoundError: the session has no such link.
    """
    statement = delete(ShareRow).where(ShareRow.session_id == session_id, ShareRow.id == share_id)
    if not (await connection.execute(statement)).rowcount:
        raise NotFoundError(f"There is no link {share_id} of session {session_id}.")


async def of_token(connection: Connection, token: str) -> Share:
    """The link that has this token.

    Raises:
        NotFoundError: there is none, it was revoked, or it has expired.
    """
    statement = SHARES.where(
        ShareRow.token == token, or_(ShareRow.expires_at.is_(None), ShareRow.expires_at > utc_now())
    )
    row = (await connection.execute(statement)).first()
    if row is None:
        raise NotFoundError("This link shows nothing: it was revoked, has expired, or never existed.")
    return Share._make(row)
