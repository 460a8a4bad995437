"""The supervisor with children that are one line of Python each: restarts, backoff, and nothing left running."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from cli import CommandError
from cli.stack.parent_death import ParentDeathWatcher
from cli.stack.process import Child, HealthCheck, Program, describe_exit
from cli.stack.programs import touched_lately
from cli.stack.supervisor import Supervisor, restart_pause
from testkit.wait import until

pytestmark = pytest.mark.integration  # it starts processes

Log = pytest.LogCaptureFixture
SLEEP = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


def fine() -> HealthCheck:
    async def check() -> str | None:
        return None

    return check


def broken() -> HealthCheck:
    async def check() -> str | None:
        return "not well"

    return check


def program(name: str, code: str, health: HealthCheck | None = None, grace: float = 5, seconds: float = 10) -> Program:
    argv = (sys.executable, "-I", "-c", code)
    return Program(name=name, argv=argv, health=health or fine(), grace=grace, start_seconds=seconds)


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    found = Supervisor(tmp_path / "logs", first_pause=0.05, health_every=0.05)
    yield found
    await found.stop()


def test_the_pause_before_a_restart_doubles_up_to_its_cap() -> None:
    assert [restart_pause(0.5, deaths) for deaths in (1, 2, 3, 6, 7, 100)] == [0.5, 1, 2, 16, 30, 30]


def test_describe_exit() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-9) == "signal SIGKILL"


async def test_a_dying_child_is_restarted_and_reported(supervisor: Supervisor, caplog: Log) -> None:
    await supervisor.start_stage([program("worker", "import sys, time; time.sleep(0.3); sys.exit(7)")])
    watching = asyncio.create_task(supervisor.watch())
    await until(lambda: supervisor.processes[0].restarts >= 2, what="the child restarts twice")
    watching.cancel()
    assert "worker died (exit code 7)" in caplog.text
    assert "restart 2 in 0.1 s" in caplog.text


async def test_a_killed_child_comes_back_healthy(supervisor: Supervisor) -> None:
    await supervisor.start_stage([program("redis", SLEEP)])
    first = supervisor.processes[0].pid
    watching = asyncio.create_task(supervisor.watch())
    os.kill(first, signal.SIGKILL)
    await until(
        lambda: supervisor.processes[0].restarts == 1 and supervisor.processes[0].healthy,
        what="the child is healthy again",
    )
    assert supervisor.processes[0].pid != first
    watching.cancel()


async def test_health_is_followed(supervisor: Supervisor, tmp_path: Path, caplog: Log) -> None:
    ready = tmp_path / "ready"
    ready.touch()
    await supervisor.start_stage([program("worker", SLEEP, touched_lately(ready))])
    watching = asyncio.create_task(supervisor.watch())
    ready.unlink()
    await until(lambda: not supervisor.processes[0].healthy, what="the child is unhealthy")
    ready.touch()
    await until(lambda: supervisor.processes[0].healthy, what="the child is healthy again")
    watching.cancel()
    assert "worker: unhealthy: ready does not exist yet" in caplog.text


async def test_a_hung_worker_is_seen(supervisor: Supervisor, tmp_path: Path, caplog: Log) -> None:
    """Its process runs, but it no longer touches the file."""
    ready = tmp_path / "ready"
    ready.touch()
    await supervisor.start_stage([program("worker", SLEEP, touched_lately(ready))])
    watching = asyncio.create_task(supervisor.watch())
    os.utime(ready, (time.time() - 60, time.time() - 60))
    await until(lambda: not supervisor.processes[0].healthy, what="the child is unhealthy")
    watching.cancel()
    assert "worker: unhealthy: ready was last touched 60 s ago" in caplog.text


async def test_stops_everything_the_last_first(supervisor: Supervisor, caplog: Log) -> None:
    await supervisor.start_stage([program("first", SLEEP)])
    await supervisor.start_stage([program("second", SLEEP)])
    pids = [process.pid for process in supervisor.processes]
    await supervisor.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert caplog.text.index("second: stopped") < caplog.text.index("first: stopped")


async def test_kills_what_does_not_listen_with_its_children(
    supervisor: Supervisor, tmp_path: Path, caplog: Log
) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); {STUBBORN}"
    await supervisor.start_stage([program("deaf", code, grace=0.3)])
    log = tmp_path / "logs" / "deaf.log"
    await until(lambda: log.read_text(encoding="utf-8").count("deaf") == 2, what="both processes ignore SIGTERM")
    leader = psutil.Process(supervisor.processes[0].pid)
    family = [leader, *leader.children(recursive=True)]
    assert len(family) == 2
    await supervisor.stop()
    await until(
        lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family),
        what="the whole group is killed",
    )
    assert "deaf: killed" in caplog.text


async def test_a_second_signal_does_not_wait(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start_stage([program("deaf", STUBBORN, grace=60)])
    await until(
        lambda: "deaf" in (tmp_path / "logs" / "deaf.log").read_text(encoding="utf-8"),
        what="the process ignores SIGTERM",
    )
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.1)
    assert not stopping.done()
    supervisor.hurry()
    async with asyncio.timeout(5):
        await stopping


async def test_failing_start_shows_the_log_and_leaves_nothing(supervisor: Supervisor) -> None:
    good = program("good", SLEEP)
    bad = program("bad", "import sys; print('no database here'); sys.exit(3)", broken())
    with pytest.raises(CommandError, match=r"(?s)bad ended with exit code 3.*no database here"):
        await supervisor.start_stage([good, bad])
    pids = [process.pid for process in supervisor.processes]
    await supervisor.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_never_healthy_says_why(supervisor: Supervisor) -> None:
    with pytest.raises(CommandError, match=r"api was not ready within 0 s \(not well\)"):
        await supervisor.start_stage([program("api", SLEEP, broken(), seconds=0.3)])


async def test_children_do_not_get_the_terminals_signals(supervisor: Supervisor) -> None:
    await supervisor.start_stage([program("one", SLEEP)])
    assert os.getsid(supervisor.processes[0].pid) != os.getsid(0)


async def test_a_program_that_ends_by_itself_is_not_restarted(supervisor: Supervisor) -> None:
    migrate = Program("migrate", (sys.executable, "-I", "-c", "print('done')"), health=None)
    await supervisor.start_stage([migrate])
    assert supervisor.processes == []
    failing = Program(
        "migrate", (sys.executable, "-I", "-c", "print('no such table'); raise SystemExit(4)"), health=None
    )
    with pytest.raises(CommandError, match=r"(?s)migrate ended with exit code 4.*no such table"):
        await supervisor.start_stage([failing])


async def test_ready_file_of_an_earlier_life_does_not_count(tmp_path: Path) -> None:
    ready = tmp_path / "run" / "worker.ready"
    ready.parent.mkdir()
    ready.touch()
    watcher = ParentDeathWatcher()
    child = Child(
        Program("worker", (sys.executable, "-c", SLEEP), touched_lately(ready), ready_file=ready), tmp_path, watcher
    )
    await child.start()
    assert not ready.exists()
    await child.kill()
    watcher.close()
