"""Servers that are programs: what they are given, what they must not get away with, and two real ones from PyPI."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from longhaul.mcp import connection, transport
from longhaul.tools import ToolError
from testkit.wait import until
from tests.longhaul.mcp.support import call, connected, context_in, program, rude

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits between two tries."""
    monkeypatch.setattr(connection, "PAUSE_FACTOR", 1.0)
    monkeypatch.setattr(transport, "EXIT_S", 0.2)
    monkeypatch.setattr(transport, "TERM_S", 0.2)


def runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_program_and_its_misdeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One server for all of them, because each misdeed ends it."""
    monkeypatch.setattr(connection, "CHECK_S", 2.0)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-servers")
    monkeypatch.setenv("LONGHAUL_JWT_SECRET", "not-for-servers")
    context = context_in(tmp_path)
    async with connected({"rude": rude(env={"MINE": "yes"})}) as servers:
        told = json.loads(await call(servers, "rude__do", context, how="show the environment"))
        assert told["MINE"] == "yes"
        assert set(told) <= {"MINE", "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER"}

        assert await call(servers, "rude__do", context, how="write nonsense") == "write nonsense"
        for misdeed, words in (
            ("die", r"ended with exit code 3\)"),
            ("send 50 MB", "more than 8000000 bytes"),
            ("send 50 MB without an end", "more than 8000000 bytes"),
        ):
            pid = await call(servers, "rude__do", context, how="say your number")
            with pytest.raises(ToolError, match=words) as lost:
                await call(servers, "rude__do", context, how=misdeed)
            assert "not known whether the call took effect" in str(lost.value)
            assert pid != (new := await call(servers, "rude__do", context, how="say your number"))
            assert not runs(pid)
        assert "exit code 3: something went wrong" in caplog.text, "the operator reads its last words, and no model"

        hanging = asyncio.create_task(call(servers, "rude__do", context, how="hang"))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(call(servers, "rude__do", context, how="say your number"))
        await asyncio.sleep(0.2)
        hanging.cancel()
        with pytest.raises(ToolError, match="did not answer for 2 seconds"):
            await waiting  # it was sent before anybody knew
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert (last := await call(servers, "rude__do", context, how="say your number")) != new
        assert not runs(new)
    assert not runs(last), "no program outlives its worker"


async def test_a_call_that_may_run_twice_is_made_again(tmp_path: Path) -> None:
    context, mark = context_in(tmp_path), tmp_path / "mark"
    servers = {
        "reads": rude(env={"MARK": str(mark), "READ_ONLY": "yes"}),
        "doubted": rude(env={"MARK": str(tmp_path / "other"), "READ_ONLY": "yes"}, trust_annotations=False),
    }
    async with connected(servers) as mcp:
        assert await call(mcp, "reads__do", context, how="die once") == "alive again"
        assert mark.exists()
        with pytest.raises(ToolError, match="not known"):
            await call(mcp, "doubted__do", context, how="die once")


async def test_servers_of_pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    commit = ["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--allow-empty", "-qm", "first"]
    subprocess.run(["git", "init", "-q", str(repository)], check=True)  # noqa: ASYNC221
    subprocess.run(["git", *commit], cwd=repository, check=True)  # noqa: ASYNC221
    context = context_in(tmp_path)
    servers = {
        "time": program("mcp_server_time", tools=("convert_*",)),
        "git": program("mcp_server_git", "--repository", str(repository)),
        "none": program("no_such_module"),
    }
    monkeypatch.setattr("tests.longhaul.mcp.support.PATIENCE_S", 3.0)
    async with connected(servers) as mcp:

        async def both() -> bool:
            return {"time__convert_time", "git__git_log", "git__git_commit"} <= set(mcp.tools)

        await until(both, what="both servers answer")
        assert "time__get_current_time" not in mcp.tools
        (trouble,) = mcp.troubles
        assert "MCP server none: its program has ended with exit code 1" in trouble
        assert "no_such_module" in trouble
        assert "does not answer" in (mcp.why_missing("none__any") or "")
        converted = await call(
            mcp,
            "time__convert_time",
            context,
            source_timezone="Europe/Berlin",
            time="12:00",
            target_timezone="Asia/Tokyo",
        )
        assert json.loads(converted)["target"]["timezone"] == "Asia/Tokyo"
        assert "first" in await call(mcp, "git__git_log", context, repo_path=str(repository))
        with pytest.raises(ToolError, match=r"git: |Error"):
            await call(mcp, "git__git_log", context, repo_path="/")
        log, commits = mcp.tools["git__git_log"], mcp.tools["git__git_commit"]
        assert (log.repeatable, log.changes) == (True, False)
        assert (commits.repeatable, commits.changes) == (False, True)
