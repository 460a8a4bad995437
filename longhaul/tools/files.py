"""Files in the workspace folder of a session and its sub-sessions; no path leads out of it."""

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path

import orjson
from pydantic import BaseModel, Field

from longhaul.tools.registry import ToolContext, ToolError, tool

FILE_MAX_BYTES = 5_000_000
READ_MAX_CHARS = 50_000
LISTED_MAX = 1_000
NAME_MAX_BYTES = 255


class Folder(BaseModel):
    path: str = Field(".", max_length=500, description="Folder, relative to the workspace")


class ReadFile(BaseModel):
    path: str = Field(max_length=500, description="File, relative to the workspace")
    offset: int = Field(0, ge=0, description="First character to read")


class WriteFile(BaseModel):
    path: str = Field(max_length=500, description="File, relative to the workspace")
    content: str = Field(max_length=FILE_MAX_BYTES, description="The whole new content")


@tool(Folder, "List the files in the session's workspace.")
async def list_files(arguments: Folder, context: ToolContext) -> str:
    return await asyncio.to_thread(_list, context.workspace, arguments.path)


@tool(ReadFile, f"Read a text file of the workspace, {READ_MAX_CHARS} characters at a time.")
async def read_file(arguments: ReadFile, context: ToolContext) -> str:
    return await asyncio.to_thread(_read, context.workspace, arguments.path, arguments.offset)


@tool(WriteFile, "Write a text file into the workspace; an existing one is replaced.", changes=True, repeatable=True)
async def write_file(arguments: WriteFile, context: ToolContext) -> str:
    return await asyncio.to_thread(_write, context, arguments.path, arguments.content)


def inside(workspace: Path, path: str) -> Path:
    """The absolute place of a path in the workspace, links followed.

    Raises:
        ToolError: the path leads out of the workspace, or it cannot be a path.
    """
    root = workspace.resolve()
    if "\x00" in path:
        raise ToolError("A path cannot contain a NUL character.")
    try:
        place = (root / path).resolve()
    except (OSError, RuntimeError) as error:  # circular links, names that are too long
        raise ToolError(f"{path!r} cannot be resolved.") from error
    if not place.is_relative_to(root):
        raise ToolError(f"{path!r} leads out of the workspace.")
    if any(len(os.fsencode(name)) > NAME_MAX_BYTES for name in place.parts):
        raise ToolError(f"{path[:50]!r}… contains a name that is too long.")
    return place


def _list(workspace: Path, path: str) -> str:
    folder = inside(workspace, path)
    if not folder.is_dir():
        if folder == workspace.resolve():
            return orjson.dumps({"files": []}).decode()
        raise ToolError(f"There is no folder {path!r}.")
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith(".longhaul-"))[:LISTED_MAX]
    files = [{"path": p.name + ("/" if p.is_dir() else ""), "bytes": p.lstat().st_size} for p in entries]
    return orjson.dumps({"files": files}).decode()


def _read(workspace: Path, path: str, offset: int) -> str:
    file = inside(workspace, path)
    try:
        if file.stat().st_size > FILE_MAX_BYTES:
            raise ToolError(f"{path!r} is larger than {FILE_MAX_BYTES} bytes.")
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"{path!r} is not a text file.") from error
    except OSError as error:
        raise ToolError(f"{path!r} cannot be read: {error.strerror}.") from error
    shown = text[offset : offset + READ_MAX_CHARS]
    rest = len(text) - offset - len(shown)
    return shown + (f"\n[{rest} more characters; continue with offset {offset + len(shown)}]" if rest > 0 else "")


def _bytes_used(workspace: Path, *, without: Path) -> int:
    """The size of all files of a workspace except one; links are counted themselves, not followed."""
    used = 0
    for folder, _, names in os.walk(workspace):
        for name in names:
            file = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):  # another call has replaced it
                used += file.lstat().st_size if file.resolve() != without else 0
    return used


def _write(context: ToolContext, path: str, content: str) -> str:
    file = inside(context.workspace, path)
    if file == context.workspace.resolve() or file.is_dir():
        raise ToolError(f"{path!r} is a folder.")
    data = content.encode("utf-8", "replace")
    if len(data) > FILE_MAX_BYTES:
        raise ToolError(f"A file holds at most {FILE_MAX_BYTES} bytes.")
    limit = context.workspace_max_bytes
    if limit and (others := _bytes_used(context.workspace, without=file)) + len(data) > limit:
        raise ToolError(
            f"{path!r} was not written: the workspace may hold {limit} bytes, its other files take {others}, and this "
            f"one needs {len(data)}. Replace files by shorter ones."
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Write a temporary file and rename it, so that a killed worker leaves the old file or the new one.
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".longhaul-")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
            Path(temporary).replace(file)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ToolError(f"{path!r} cannot be written: {error.strerror}.") from error
    return orjson.dumps({"path": path, "characters": len(content)}).decode()
