"""What is known about files; their content is in the `FileStore`."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select, tuple_

from longhaul.db.connection import Connection
from longhaul.db.models import FileRow, columns_of, utc_now
from longhaul.errors import FilesFullError, NotFoundError


class StoredFile(NamedTuple):
    """A file of a user. `session_id`: the session whose tool has made it; None: the user has uploaded it."""

    id: str
    user_id: str
    session_id: str | None
    name: str
    media_type: str
    size: int
    created_at: datetime


class NewFile(NamedTuple):
    """A file to be known; `created_at` is now."""

    id: str
    user_id: str
    name: str
    media_type: str
    size: int
    session_id: str | None = None


class FilePosition(NamedTuple):
    """A place in the list of a user's files."""

    created_at: datetime
    id: str


FILES = select(*columns_of(FileRow, StoredFile))
OF_USER = FILES.where(FileRow.user_id == bindparam("user"))
BY_IDS = OF_USER.where(FileRow.id.in_(bindparam("ids", expanding=True)))
NEWEST = OF_USER.order_by(FileRow.created_at.desc(), FileRow.id.desc()).limit(bindparam("most"))
SIZE_OF_USER = select(func.coalesce(func.sum(FileRow.size), 0)).where(FileRow.user_id == bindparam("user"))


async def of_ids(connection: Connection, user_id: str, ids: Sequence[str]) -> list[StoredFile]:
    """Those of the ids that name a file of this user, in the order of the ids and once each."""
    rows = await connection.execute(BY_IDS, {"user": user_id, "ids": list(ids)})
    found = {row.id: StoredFile._make(row) for row in rows}
    return [found[one] for one in dict.fromkeys(ids) if one in found]


async def get(connection: Connection, user_id: str, file_id: str) -> StoredFile:
    """A file of a user.

    Raises:
        NotFoundError: there is none, or it is another user's.
    """
    for found in await of_ids(connection, user_id, [file_id]):
        return found
    raise NotFoundError(f"There is no file {file_id}.")


async def list_of_user(
    connection: Connection, user_id: str, limit: int, before: FilePosition | None = None
) -> list[StoredFile]:
    """A user's files behind a position, newest first."""
    statement = NEWEST
    if before is not None:
        statement = statement.where(tuple_(FileRow.created_at, FileRow.id) < tuple(before))
    return [StoredFile._make(row) for row in await connection.execute(statement, {"user": user_id, "most": limit})]


async def add(connection: Connection, file: NewFile, max_bytes: int) -> StoredFile:
    """Note a file whose content is stored; one that is known already stays as it is.

    Raises:
        FilesFullError: the files of its user would take more than `max_bytes` (0: no limit).
    """
    await connection.lock_name(f"files of {file.user_id}")
    for known in await of_ids(connection, file.user_id, [file.id]):
        return known
    used: int = await connection.scalar(SIZE_OF_USER, {"user": file.user_id}) or 0
    if max_bytes and used + file.size > max_bytes:
        raise FilesFullError(used, file.size, max_bytes)
    stored = StoredFile(created_at=utc_now(), **file._asdict())
    await connection.execute(insert(FileRow), stored._asdict())
    return stored


async def remove(connection: Connection, user_id: str, file_id: str) -> None:
    """Forget a file of a user.

    Raises:
        NotFoundError: there is none, or it is another user's.
    """
    await get(connection, user_id, file_id)
    await connection.execute(delete(FileRow).where(FileRow.user_id == user_id, FileRow.id == file_id))


async def remove_of_sessions(connection: Connection, session_ids: Sequence[str]) -> list[str]:
    """Forget the files that tools of these sessions have made; their ids."""
    statement = delete(FileRow).where(FileRow.session_id.in_(session_ids)).returning(FileRow.id)
    return list(await connection.scalars(statement))
