"""Files in the workspace folder of a session and its sub-sessions; no path leads out of it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

import orjson
from pydantic import BaseModel, Field

from longhaul.files.workspace import Workspace, WorkspaceError
from longhaul.tools.context import ToolContext, ToolError
from longhaul.tools.registry import tool

FILE_MAX_BYTES = 5_000_000
READ_MAX_CHARS = 50_000
#: A longer line is shown and searched in pieces.
LINE_MAX_BYTES = 10_000
#: What one call reads of a large file in search of lines.
SCANNED_MAX_BYTES = 200_000_000
Result = TypeVar("Result")


class Folder(BaseModel):
    path: str = Field(".", max_length=500, description="Folder, relative to the workspace")


class ReadFile(BaseModel):
    path: str = Field(max_length=500, description="File, relative to the workspace")
    offset: int = Field(0, ge=0, description="First character to read")
    from_line: int | None = Field(None, ge=1, description="Read numbered lines from this one on instead")
    lines: int | None = Field(None, ge=1, description="How many lines, with from_line or grep")
    grep: str | None = Field(None, min_length=1, max_length=500, description="Only lines with this text, any case")


class WriteFile(BaseModel):
    path: str = Field(max_length=500, description="File, relative to the workspace")
    content: str = Field(max_length=FILE_MAX_BYTES, description="The whole new content, or the next part of it")
    at: int | None = Field(
        None, ge=0, description="To write a large file in parts: how many characters it has; the content is added there"
    )


class EditFile(BaseModel):
    path: str = Field(max_length=500, description="File, relative to the workspace")
    old: str = Field(min_length=1, max_length=FILE_MAX_BYTES, description="Text to replace, exactly as in the file")
    new: str = Field(max_length=FILE_MAX_BYTES, description="Text in its place")
    all: bool = Field(default=False, description="Replace every occurrence; otherwise there must be just one")


@tool(Folder, "List the files in the session's workspace.")
async def list_files(arguments: Folder, context: ToolContext) -> str:
    entries = await _done(lambda: _workspace(context).entries(arguments.path))
    files = [{"path": one.name + ("/" if one.is_folder else ""), "bytes": one.bytes} for one in entries]
    return orjson.dumps({"files": files}).decode()


@tool(
    ReadFile,
    f"Read a text file of the workspace, {READ_MAX_CHARS} characters at a time, or numbered lines of it, or search it.",
)
async def read_file(arguments: ReadFile, context: ToolContext) -> str:
    by_line = arguments.from_line is not None or arguments.lines is not None or arguments.grep is not None
    return await _done(lambda: (_read_lines if by_line else _read)(_workspace(context), arguments))


@tool(
    WriteFile,
    "Write a text file into the workspace, whole or part by part; an existing one is replaced.",
    changes=True,
    repeatable=True,
    would="write {path}",
)
async def write_file(arguments: WriteFile, context: ToolContext) -> str:
    return await _done(lambda: _write(_workspace(context), arguments))


@tool(EditFile, "Replace a text in a file of the workspace by another one.", changes=True, would="edit {path}")
async def edit_file(arguments: EditFile, context: ToolContext) -> str:
    return await _done(lambda: _edit(_workspace(context), arguments))


def _workspace(context: ToolContext) -> Workspace:
    return Workspace(context.workspace, context.workspace_max_bytes)


async def _done(work: Callable[[], Result]) -> Result:
    """The result of work that blocks.

    Raises:
        ToolError: it was refused.
    """
    try:
        return await asyncio.to_thread(work)
    except WorkspaceError as error:
        raise ToolError(str(error)) from error


def _text(workspace: Workspace, path: str) -> str:
    try:
        return workspace.read(path, FILE_MAX_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"{path!r} is not a text file.") from error


def _read(workspace: Workspace, arguments: ReadFile) -> str:
    text = _text(workspace, arguments.path)
    shown = text[arguments.offset : arguments.offset + READ_MAX_CHARS]
    end = arguments.offset + len(shown)
    return shown + (f"\n[{len(text) - end} more characters; continue with offset {end}]" if end < len(text) else "")


def _read_lines(workspace: Workspace, arguments: ReadFile) -> str:
    """Lines with their numbers, as many as one result holds."""
    first, wanted = arguments.from_line or 1, (arguments.grep or "").casefold()
    shown: list[str] = []
    room, left, number = READ_MAX_CHARS, arguments.lines, 0
    with workspace.reading(arguments.path) as file:
        for number, line in _lines(file, arguments.path):
            if number < first or wanted not in line.casefold():
                continue
            if left == 0 or len(line) + 12 > room:
                shown.append(f"[continue with from_line {number}]")
                return "\n".join(shown)
            shown.append(f"{number}: {line}")
            room -= len(shown[-1]) + 1
            left = left - 1 if left is not None else None
        if file.tell() >= SCANNED_MAX_BYTES:
            shown.append(f"[only the first {SCANNED_MAX_BYTES} bytes were read, to line {number}]")
    if not shown:
        found = f"no line from {first} on contains {arguments.grep!r}" if arguments.grep else "no such lines"
        return f"[{found}; the file has {number} lines]"
    return "\n".join(shown)


def _lines(file: BinaryIO, path: str) -> Iterator[tuple[int, str]]:
    number, begins = 0, True
    while file.tell() < SCANNED_MAX_BYTES and (line := file.readline(LINE_MAX_BYTES)):
        if b"\x00" in line:
            raise ToolError(f"{path!r} is not a text file.")
        number += begins
        yield number, line.decode("utf-8", "replace").rstrip("\r\n")
        begins = line.endswith(b"\n")


def _write(workspace: Workspace, arguments: WriteFile) -> str:
    content = arguments.content
    if arguments.at:
        before = _text(workspace, arguments.path)
        # A call that runs again after its worker died finds its part in the file already.
        if len(before) != arguments.at and before[arguments.at :] != content:
            raise ToolError(
                f"{arguments.path!r} has {len(before)} characters, not {arguments.at}; nothing was written. Add the "
                f"next part at {len(before)}, or write the file anew."
            )
        content = before[: arguments.at] + content
    _put(workspace, arguments.path, content)
    return orjson.dumps({"path": arguments.path, "characters": len(content)}).decode()


def _edit(workspace: Workspace, arguments: EditFile) -> str:
    text = _text(workspace, arguments.path)
    found = text.count(arguments.old)
    if not found:
        raise ToolError(f"{arguments.path!r} does not contain that text, compared exactly; read the file again.")
    if found > 1 and not arguments.all:
        raise ToolError(
            f"{arguments.path!r} contains that text {found} times; give more of the text around the right one, or set "
            "`all`."
        )
    edited = text.replace(arguments.old, arguments.new)
    _put(workspace, arguments.path, edited)
    return orjson.dumps({"path": arguments.path, "replaced": found, "characters": len(edited)}).decode()


def _put(workspace: Workspace, path: str, content: str) -> None:
    data = content.encode("utf-8", "replace")
    if len(data) > FILE_MAX_BYTES:
        raise ToolError(f"A file holds at most {FILE_MAX_BYTES} bytes.")
    workspace.write(path, data)
