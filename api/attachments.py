"""Files that come with a message: named by id, or inside it as data URLs. They go into the session's workspace."""

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote_to_bytes

from api.dependencies import Dependencies
from api.problems import ProblemError, invalid
from longhaul.db import files
from longhaul.db.files import NewFile, StoredFile
from longhaul.db.messages import row_id
from longhaul.db.sessions import Session
from longhaul.errors import FilesFullError, NotFoundError
from longhaul.files.media_types import HEAD_BYTES, file_name, media_type
from longhaul.files.workspace import Workspace, WorkspaceError
from longhaul.turns.deliver import IncomingMessage

FILES_MAX = 20
#: The folder of a workspace that files of messages are put into.
UPLOADS = "uploads"
_OURS = re.compile(r"(?:https?://[^/?#]+)?/v1/files/([\w-]{1,64})/content(?:[?#].*)?", re.ASCII)


@dataclass(frozen=True)
class InlineFile:
    """A file whose content came with the message."""

    name: str
    data: bytes


FileReference = str | InlineFile


def references(parts: Sequence[dict[str, Any]]) -> tuple[FileReference, ...]:
    """The files in the parts of an AI SDK message.

    Raises:
        ProblemError: 422, a file's address is neither a data URL nor one of this API. Other addresses are not fetched.
    """
    found = [(at, part) for at, part in enumerate(parts) if part.get("type") == "file"]
    if len(found) > FILES_MAX:
        raise invalid([{"loc": ["body", "parts"], "msg": f"at most {FILES_MAX} files", "type": "too_long"}])
    return tuple(_reference(at, part) for at, part in found)


def _reference(at: int, part: dict[str, Any]) -> FileReference:
    url = part.get("url")
    if isinstance(url, str):
        if ours := _OURS.fullmatch(url):
            return ours[1]
        head, comma, body = url.partition(",")
        if head.startswith("data:") and comma:
            try:
                data = base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
            except (binascii.Error, ValueError) as error:
                raise _refused(at, f"no valid data URL: {error}") from error
            name = part.get("filename")
            return InlineFile(file_name(name if isinstance(name, str) else None), data)
    raise _refused(at, "should be a data URL, or that of a file of POST /v1/files; others are not fetched")


def _refused(at: int, why: str) -> Exception:
    return invalid([{"loc": ["body", "parts", at, "url"], "msg": why, "type": "file_url"}])


async def keep(deps: Dependencies, user: str, file_id: str, name: str, data: bytes) -> StoredFile:
    """Store a file of a user.

    Raises:
        ProblemError: 413, it is too large.
        FilesFullError: the user's files are.
        UnavailableError: the store or the database is away.
    """
    if len(data) > deps.settings.file_max_bytes:
        raise ProblemError(413, "too-large", f"A file may have up to {deps.settings.file_max_bytes} bytes.")
    file = NewFile(file_id, user, name, media_type(data[:HEAD_BYTES], name), len(data))
    await deps.files.put(file_id, data)
    try:
        async with deps.database.write() as connection:
            return await files.add(connection, file, deps.settings.user_files_max_bytes)
    except FilesFullError:
        await deps.files.remove(file_id)
        raise


async def attach(
    deps: Dependencies, user: str, session: Session, message: IncomingMessage, references: Sequence[FileReference]
) -> IncomingMessage:
    """The message with its files: noted in its row's context, and put into the workspace. Unknown ids are dropped.

    Raises:
        ProblemError: 413, a file or the workspace is too large. Otherwise as `keep`.
    """
    ids = [one if isinstance(one, str) else await _kept(deps, user, session, one) for one in references]
    if not ids:
        return message
    async with deps.database.read() as connection:
        found = await files.of_ids(connection, user, ids)
    attached = [entry for file in found if (entry := await _placed(deps, session, file)) is not None]
    if not attached:
        return message
    return replace(message, context={**(message.context or {}), "files": attached})


async def _kept(deps: Dependencies, user: str, session: Session, inline: InlineFile) -> str:
    """The id of a file that came inside a message; the AI SDK sends it again with every repetition of the message."""
    digest = await asyncio.to_thread(_digest, inline.data)
    file_id = row_id("file", user, session.id, inline.name, digest)
    async with deps.database.read() as connection:
        known = await files.of_ids(connection, user, [file_id])
    if not known:
        await keep(deps, user, file_id, inline.name, inline.data)
    return file_id


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def _placed(deps: Dependencies, session: Session, file: StoredFile) -> dict[str, Any] | None:
    """What the message's row says about a file, once it is in the workspace; None: its content is gone."""
    try:
        data = await deps.files.read(file.id)
    except NotFoundError:
        return None
    folder = deps.settings.workspace_of(session.root_session_id or session.id)
    try:
        path = await asyncio.to_thread(_place, Workspace(folder, deps.settings.workspace_max_bytes), file, data)
    except WorkspaceError as error:
        raise ProblemError(413, "workspace-full", f"The file {file.name!r} cannot be attached: {error}") from error
    return {"id": file.id, "name": file.name, "media_type": file.media_type, "size": file.size, "path": path}


def _place(workspace: Workspace, file: StoredFile, data: bytes) -> str:
    """Put a file into the workspace, under its own name unless another file has that. The same file is put once."""
    name = PurePosixPath(file.name)
    path = f"{UPLOADS}/{file.name}"
    if workspace.holds(path, data) is False:
        path = f"{UPLOADS}/{name.stem}-{file.id[:8]}{name.suffix}"
    if not workspace.holds(path, data):
        workspace.write(path, data)
    return path
