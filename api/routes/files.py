"""Files of a user: upload, list, download, delete. Messages name them by id."""

from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import quote
from uuid import uuid4

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import StreamingResponse

from api.attachments import keep
from api.cursors import CURSOR, cursor_of, position
from api.dependencies import CurrentUser, Dependencies, Deps
from api.problems import RESPONSES, TOO_LARGE, ProblemError, invalid
from api.schemas.files import File, Files
from longhaul.db import files
from longhaul.db.files import FilePosition, StoredFile
from longhaul.files.media_types import IMAGES, file_name
from longhaul.streams.events import file_url

router = APIRouter(prefix="/v1/files", tags=["files"], responses=RESPONSES)
#: What a form takes beside the file in it.
FORM_BYTES = 64 * 1024
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            }
        },
    }
}
CONTENT = {"description": "The file.", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
FileId = Annotated[str, Path(max_length=64, description="Id of a file.")]


async def own_file(file_id: FileId, user: CurrentUser, deps: Deps) -> StoredFile:
    """The file that a path names if it is the caller's; otherwise the same 404 as for a missing one."""
    async with deps.database.read() as connection:
        return await files.get(connection, user, file_id)


OwnFile = Annotated[StoredFile, Depends(own_file)]


def _shown(file: StoredFile) -> File:
    return File(**file._asdict(), url=file_url(file.id))


@router.post("", status_code=201, summary="Upload a file", responses=TOO_LARGE, openapi_extra=FORM)
async def upload(user: CurrentUser, deps: Deps, request: Request) -> File:
    """A form with one field `file`, as browsers and `curl -F` send it. Its type is that of its content."""
    name, data = await _uploaded(deps, request)
    return _shown(await keep(deps, user, str(uuid4()), name, data))


async def _uploaded(deps: Dependencies, request: Request) -> tuple[str, bytes]:
    """The name and the content of the file in a form. A large one is on disk until it has passed the limit."""
    most = deps.settings.file_max_bytes
    too_large = ProblemError(413, "too-large", f"A file may have up to {most} bytes.")

    async def limited() -> AsyncIterator[bytes]:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > most + FORM_BYTES:
                raise too_large
            yield chunk

    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise _invalid("should be a form (multipart/form-data) with a field `file`")
    try:
        form = await MultiPartParser(request.headers, limited(), max_files=1, max_fields=10).parse()  # type: ignore[arg-type]
    except (MultiPartException, KeyError) as error:  # KeyError: the type has no boundary
        raise _invalid(f"no valid form: {error}") from error
    try:
        sent = form.get("file")
        if not isinstance(sent, UploadFile):
            raise _invalid("has no file in the field `file`")
        return file_name(sent.filename), await sent.read()
    finally:
        await form.close()


def _invalid(why: str) -> Exception:
    return invalid([{"loc": ["body"], "msg": why, "type": "form"}])


@router.get("", summary="List your files")
async def listing(
    user: CurrentUser,
    deps: Deps,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")] = None,
) -> Files:
    """Newest first."""
    before = FilePosition(*position(cursor)) if cursor is not None else None
    async with deps.database.read() as connection:
        rows = await files.list_of_user(connection, user, limit + 1, before)
    page = rows[:limit]
    next_cursor = cursor_of(page[-1].created_at, page[-1].id) if len(rows) > limit else None
    shown = [_shown(file) for file in page]
    return Files(data=shown, files=shown, has_more=next_cursor is not None, next_cursor=next_cursor)


@router.get("/{file_id}", summary="What is known about a file")
async def about(file: OwnFile) -> File:
    return _shown(file)


@router.get("/{file_id}/content", response_model=None, summary="Download a file", responses={200: CONTENT})
async def content(file: OwnFile, deps: Deps) -> Response:
    """Images are shown by browsers, everything else is saved: nothing of it runs as a page of this address."""
    chunks = deps.files.chunks(file.id)
    first = await anext(chunks, b"")  # here, so that a missing file is a 404 and no broken answer

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    kind = "inline" if file.media_type in IMAGES else "attachment"
    headers = {
        "content-length": str(file.size),
        "content-disposition": f"{kind}; filename*=UTF-8''{quote(file.name, safe='')}",
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
        "cache-control": "private, max-age=31536000, immutable",
    }
    return StreamingResponse(body(), headers=headers, media_type=file.media_type)


@router.delete("/{file_id}", status_code=204, summary="Delete a file")
async def delete(file: OwnFile, user: CurrentUser, deps: Deps) -> Response:
    """Copies in workspaces stay until their session is deleted."""
    async with deps.database.write() as connection:
        await files.remove(connection, user, file.id)
    await deps.files.remove(file.id)
    return Response(status_code=204)
