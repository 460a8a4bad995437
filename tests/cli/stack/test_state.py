"""State file, lock of the home, logs."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from cli.stack.child import rotate, tail
from cli.stack.errors import StackError
from cli.stack.progress import Progress
from cli.stack.state import HomeLock, ProcessState, StackState, read_state, running_supervisor, write_state
from cli.stack.up import stop_leftovers


def test_state_survives_the_file(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    state = StackState(status="ready", ports={"api": 8700}, versions={"redis": "7"})
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(StackError, match=r"state\.json is not readable.*delete it"):
        read_state(tmp_path)


def test_only_one_supervisor_of_a_home(tmp_path: Path) -> None:
    assert running_supervisor(tmp_path) is None
    first, second = HomeLock(tmp_path), HomeLock(tmp_path)
    with first:
        assert first.acquire()
        assert not second.acquire()
        assert running_supervisor(tmp_path) == os.getpid()
    assert running_supervisor(tmp_path) is None
    with second:
        assert second.acquire()


def test_a_home_that_cannot_be_made_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="set LONGHAUL_HOME"):
        HomeLock(tmp_path / "file" / "home").acquire()


async def test_leftovers_of_a_killed_supervisor_are_stopped(progress: Progress) -> None:
    left, innocent = [await asyncio.create_subprocess_exec("sleep", "60") for _ in range(2)]
    try:
        created = psutil.Process(left.pid).create_time()
        states = [
            ProcessState(name="redis", pid=left.pid, created=created, healthy=True, restarts=0),
            # the same pid as a process of another time: somebody else's by now
            ProcessState(name="api", pid=innocent.pid, created=created - 1000, healthy=True, restarts=0),
        ]
        await stop_leftovers(StackState(processes=states), progress)
        assert not psutil.pid_exists(left.pid)
        assert innocent.returncode is None
    finally:
        innocent.kill()
        await innocent.wait()


def test_logs_rotate_by_size(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    rotate(log, limit=10)
    for number in range(5):
        log.write_text(f"{number}" * 20, encoding="utf-8")
        rotate(log, limit=10, keep=3)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["api.log.1", "api.log.2", "api.log.3"]
    assert (tmp_path / "api.log.1").read_text(encoding="utf-8") == "4" * 20
    log.write_text("short", encoding="utf-8")
    rotate(log, limit=10)
    assert log.exists()


def test_tail(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert tail(log, 3) == ""
    log.write_text("\n".join(str(number) for number in range(100_000)), encoding="utf-8")
    assert tail(log, 2) == "99998\n99999"
