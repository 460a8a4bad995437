"""Files of a workspace, and no others."""

import asyncio
import os
import time
from dataclasses import replace
from typing import Any

import orjson
import pytest

from longhaul.files import workspace as workspace_module
from longhaul.files.workspace import Workspace
from longhaul.tools import Tool, ToolContext, ToolError
from longhaul.tools import files as module
from longhaul.tools.files import edit_file, list_files, read_file, write_file

OUTSIDE = [
    "..",
    "../",
    "../other",
    "../../secret.txt",
    "/etc/passwd",
    "a/../../../secret.txt",
    "link",
    "link/secret.txt",
]
EDIT = {"old": "a", "new": "b"}


async def run(tool: Tool, context: ToolContext, **arguments: Any) -> str:
    assert tool.run is not None
    return await tool.run(tool.parse(orjson.dumps(arguments).decode()), context)


async def listed(context: ToolContext, path: str = ".") -> list[str]:
    return [found["path"] for found in orjson.loads(await run(list_files, context, path=path))["files"]]


@pytest.fixture
def linked(context: ToolContext) -> ToolContext:
    """A workspace with links: out of it, to a file of its own, to nothing, to itself."""
    context.workspace.mkdir(parents=True)
    (context.workspace / "link").symlink_to(context.workspace.parent.parent)
    (context.workspace / "absolute").symlink_to("/etc/passwd")
    (context.workspace / "own").symlink_to(context.workspace / "mine.txt")
    (context.workspace / "broken").symlink_to(context.workspace / "nothing")
    (context.workspace / "circle").symlink_to(context.workspace / "circle")
    (context.workspace / "mine.txt").write_text("mine")
    return context


@pytest.mark.parametrize("path", [*OUTSIDE, "absolute"])
async def test_no_way_out(linked: ToolContext, path: str) -> None:
    before = sorted(str(found) for found in linked.workspace.parent.parent.rglob("*"))
    for tool, more in ((read_file, {}), (write_file, {"content": "x"}), (list_files, {}), (edit_file, EDIT)):
        with pytest.raises(ToolError, match="leads out of the workspace"):
            await run(tool, linked, path=path, **more)
    assert sorted(str(found) for found in linked.workspace.parent.parent.rglob("*")) == before
    assert (linked.workspace.parent.parent / "secret.txt").read_text() == "secret"


@pytest.mark.parametrize("path", ["a\x00b", "\x00", "circle", "circle/x", "n" * 400, "mine.txt/x"])
async def test_paths_that_are_none(linked: ToolContext, path: str) -> None:
    for tool, more in ((read_file, {}), (write_file, {"content": "x"}), (list_files, {}), (edit_file, EDIT)):
        with pytest.raises(ToolError):
            await run(tool, linked, path=path, **more)
    assert not list(linked.workspace.glob(".longhaul-*"))


async def test_links_inside_work(linked: ToolContext) -> None:
    assert await run(read_file, linked, path="own") == "mine"
    assert await listed(linked) == ["absolute", "broken", "circle", "link/", "mine.txt", "own"]


@pytest.mark.parametrize("content", ["", "plain", "a\r\nb\rc\n", "ü日本🙂\ufeff", "\x00\x01", "x" * 49_000])
async def test_what_is_written_is_read(context: ToolContext, content: str) -> None:
    answer = await run(write_file, context, path="deep/er/file.txt", content=content)
    assert orjson.loads(answer) == {"path": "deep/er/file.txt", "characters": len(content)}
    assert await run(read_file, context, path="./deep/../deep/er/file.txt") == content
    assert await listed(context) == ["deep/"]
    assert await listed(context, "deep/er") == ["file.txt"]


async def test_a_new_session_has_no_files(context: ToolContext) -> None:
    assert await listed(context) == []
    with pytest.raises(ToolError, match="There is no folder 'x'"):
        await listed(context, "x")
    with pytest.raises(ToolError, match="'x' cannot be read: No such file"):
        await run(read_file, context, path="x")


@pytest.mark.parametrize("path", [".", "", "./", "folder"])
async def test_a_folder_is_not_written(context: ToolContext, path: str) -> None:
    if path == "folder":
        (context.workspace / "folder").mkdir(parents=True)
    with pytest.raises(ToolError, match="is a folder"):
        await run(write_file, context, path=path, content="x")
    assert not context.workspace.is_file()
    assert not list(context.workspace.parent.rglob(".longhaul-*"))


async def test_reading_goes_on_with_an_offset(context: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_MAX_CHARS", 10)
    await run(write_file, context, path="f", content="0123456789ü🙂cd")
    assert await run(read_file, context, path="f") == "0123456789\n[4 more characters; continue with offset 10]"
    assert await run(read_file, context, path="f", offset=10) == "ü🙂cd"
    assert await run(read_file, context, path="f", offset=14) == ""
    assert await run(read_file, context, path="f", offset=99) == ""
    with pytest.raises(ToolError, match="offset"):
        await run(read_file, context, path="f", offset=-1)


async def test_sizes_are_limited_in_bytes(context: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_MAX_BYTES", 10)
    with pytest.raises(ToolError, match="at most 10 bytes"):
        await run(write_file, context, path="f", content="üüüüüü")
    await run(write_file, context, path="f", content="üüüüü")
    (context.workspace / "large").write_bytes(b"x" * 11)
    with pytest.raises(ToolError, match="larger than 10 bytes"):
        await run(read_file, context, path="large")


async def test_what_is_no_text_says_so(context: ToolContext) -> None:
    context.workspace.mkdir(parents=True)
    (context.workspace / "image").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ToolError, match="'image' is not a text file"):
        await run(read_file, context, path="image")
    with pytest.raises(ToolError, match=r"'\.' cannot be read: Is a directory"):
        await run(read_file, context, path=".")


async def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(write_file, context, path="f", content="old")

    def full(temporary: str, name: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        assert (context.workspace / temporary).read_text() == "new", "all of it is there before it replaces the old one"
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ToolError, match="cannot be written: No space left"):
        await run(write_file, context, path="f", content="new")
    assert [found.name for found in context.workspace.iterdir()] == ["f"]
    assert await run(read_file, context, path="f") == "old"


async def test_half_written_files_are_not_listed(context: ToolContext) -> None:
    await run(write_file, context, path="f", content="x")
    (context.workspace / ".longhaul-abc").write_text("half")
    assert await listed(context) == ["f"]


async def test_a_quota_holds_for_writes_at_the_same_moment(
    context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool calls of a round run in parallel, and sub-sessions write to the same folder."""
    bytes_used = Workspace._bytes_used

    def slowly(workspace: Workspace, *, without: tuple[str, ...] | None) -> int:
        used = bytes_used(workspace, without=without)
        time.sleep(0.02)
        return used

    monkeypatch.setattr(Workspace, "_bytes_used", slowly)
    limited = replace(context, workspace_max_bytes=10)
    writes = (run(write_file, limited, path=name, content="x" * 4) for name in "abcdefgh")
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 2
    assert {type(outcome) for outcome in outcomes} == {str, ToolError}
    assert Workspace(context.workspace).bytes_used() == 8


async def test_a_process_that_hangs_with_the_lock_holds_no_write_up(
    context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_module, "LOCK_MAX_S", 0.05)
    limited = replace(context, workspace_max_bytes=10)
    context.workspace.mkdir(parents=True)
    with Workspace(context.workspace, 10)._alone():
        await run(write_file, limited, path="a", content="x")
    assert await listed(context) == ["a"]


async def test_a_quota_holds_for_all_files_together(context: ToolContext) -> None:
    limited = replace(context, workspace_max_bytes=10)
    await run(write_file, limited, path="a", content="x" * 6)
    with pytest.raises(ToolError, match=r"may hold 10 bytes, its other files take 6, and this one needs 5"):
        await run(write_file, limited, path="folder/b", content="x" * 5)
    assert not (context.workspace / "folder").exists()
    await run(write_file, limited, path="a", content="x" * 10)  # it replaces its own bytes
    await run(write_file, limited, path="b", content="")
    assert (context.workspace / "a").read_text() == "x" * 10


async def test_lines_and_searches_have_numbers(context: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    await run(write_file, context, path="f", content="one\r\nTwo\nthree\ntwo again")
    assert (
        await run(read_file, context, path="f", from_line=2, lines=2) == "2: Two\n3: three\n[continue with from_line 4]"
    )
    assert await run(read_file, context, path="f", from_line=4) == "4: two again"
    assert await run(read_file, context, path="f", grep="TWO") == "2: Two\n4: two again"
    assert await run(read_file, context, path="f", grep="two", from_line=3) == "4: two again"
    assert await run(read_file, context, path="f", grep="(a+)+$") == (
        "[no line from 1 on contains '(a+)+$'; the file has 4 lines]"
    )
    assert await run(read_file, context, path="f", from_line=9) == "[no such lines; the file has 4 lines]"
    monkeypatch.setattr(module, "READ_MAX_CHARS", 40)
    assert (
        await run(read_file, context, path="f", from_line=1) == "1: one\n2: Two\n3: three\n[continue with from_line 4]"
    )


async def test_large_files_are_searched_in_pieces(context: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    context.workspace.mkdir(parents=True)
    (context.workspace / "large").write_bytes(b"x" * 6_000_000 + b"\nneedle\n" + b"y" * 10)
    assert await run(read_file, context, path="large", grep="needle") == "2: needle"
    monkeypatch.setattr(module, "SCANNED_MAX_BYTES", 30_000)
    assert "[only the first 30000 bytes were read, to line 1]" in await run(read_file, context, path="large", grep="z")
    (context.workspace / "binary").write_bytes(b"text\n\x00\x01")
    with pytest.raises(ToolError, match="'binary' is not a text file"):
        await run(read_file, context, path="binary", grep="text")


async def test_a_pipe_holds_nobody_up(context: ToolContext) -> None:
    context.workspace.mkdir(parents=True)
    os.mkfifo(context.workspace / "pipe")
    for arguments in ({}, {"grep": "x"}):
        with pytest.raises(ToolError, match="a pipe or a device"):
            await run(read_file, context, path="pipe", **arguments)
    await run(write_file, context, path="pipe", content="x")
    assert await run(read_file, context, path="pipe") == "x"


async def test_a_large_file_is_written_in_parts(context: ToolContext) -> None:
    await run(write_file, context, path="f", content="one ü ")
    for _ in range(2):  # as after the death of a worker
        answer = await run(write_file, context, path="f", content="two", at=6)
        assert orjson.loads(answer) == {"path": "f", "characters": 9}
    with pytest.raises(ToolError, match=r"has 9 characters, not 5; nothing was written. Add the next part at 9"):
        await run(write_file, context, path="f", content="x", at=5)
    with pytest.raises(ToolError, match="cannot be read: No such file"):
        await run(write_file, context, path="new", content="x", at=5)
    assert await run(read_file, context, path="f") == "one ü two"
    await run(write_file, context, path="f", content="anew", at=0)
    assert await run(read_file, context, path="f") == "anew"


async def test_an_edit_replaces_exactly_what_it_names(context: ToolContext) -> None:
    await run(write_file, context, path="f", content="a b a\n a.b")
    with pytest.raises(ToolError, match="contains that text 3 times"):
        await run(edit_file, context, path="f", old="a", new="x")
    with pytest.raises(ToolError, match="does not contain that text"):
        await run(edit_file, context, path="f", old="A", new="x")
    await run(edit_file, context, path="f", old="a.b", new="\\1$&")
    assert await run(read_file, context, path="f") == "a b a\n \\1$&"
    answer = await run(edit_file, context, path="f", old="a", new="", all=True)
    assert orjson.loads(answer) == {"path": "f", "replaced": 2, "characters": 9}
    assert await run(read_file, context, path="f") == " b \n \\1$&"


@pytest.mark.parametrize("tool", [read_file, write_file, edit_file, list_files])
async def test_a_link_put_in_between_leads_nowhere(
    context: ToolContext, monkeypatch: pytest.MonkeyPatch, tool: Tool
) -> None:
    """A shell of the session swaps a folder for a link between the check of a path and its use."""
    outside = context.workspace.parent / "outside"
    outside.mkdir(parents=True)
    (outside / "f").write_text("a secret")
    (context.workspace / "folder").mkdir(parents=True)
    (context.workspace / "folder" / "f").write_text("a")
    resolve = Workspace._names

    def swapped(self: Workspace, path: str) -> tuple[str, ...]:
        names = resolve(self, path)
        (context.workspace / "folder").rename(context.workspace / "moved")
        (context.workspace / "folder").symlink_to(outside)
        return names

    monkeypatch.setattr(Workspace, "_names", swapped)
    more: dict[Any, dict[str, Any]] = {write_file: {"content": "x"}, edit_file: EDIT}
    path = "folder" if tool is list_files else "folder/f"
    with pytest.raises(ToolError):
        await run(tool, context, path=path, **more.get(tool, {}))
    assert [found.name for found in outside.iterdir()] == ["f"]
    assert (outside / "f").read_text() == "a secret"
