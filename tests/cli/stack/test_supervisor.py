"""The supervisor with children that are one line of Python each: restarts, backoff, and nothing left running."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from cli.stack.child import Child, ChildSpec, describe_exit
from cli.stack.errors import StackError
from cli.stack.health import HealthCheck, file_exists
from cli.stack.progress import Progress
from cli.stack.supervisor import Backoff, Supervisor
from tests.cli.stack.conftest import Said

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


def spec(name: str, code: str, health: HealthCheck | None = None, grace: float = 5, seconds: float = 10) -> ChildSpec:
    argv = (sys.executable, "-I", "-c", code)
    return ChildSpec(name=name, argv=argv, health=health or fine(), grace=grace, start_seconds=seconds)


async def until(true: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not become true"
        await asyncio.sleep(0.02)


@pytest.fixture
async def supervisor(tmp_path: Path, progress: Progress) -> AsyncIterator[Supervisor]:
    found = Supervisor(tmp_path / "logs", progress, backoff=Backoff(first=0.05, most=0.2), health_every=0.05)
    yield found
    await found.stop()


def test_backoff_doubles_up_to_its_cap() -> None:
    backoff = Backoff()
    assert [backoff.wait(deaths) for deaths in (1, 2, 3, 6, 7, 100)] == [0.5, 1, 2, 16, 30, 30]


def test_describe_exit() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-9) == "signal SIGKILL"


async def test_a_dying_child_is_restarted_and_reported(supervisor: Supervisor, said: Said) -> None:
    await supervisor.start_stage([spec("worker", "import sys, time; time.sleep(0.3); sys.exit(7)")])
    stop = asyncio.Event()
    watching = asyncio.create_task(supervisor.watch(stop))
    await until(lambda: supervisor.processes[0].restarts >= 2)
    stop.set()
    await watching
    assert "worker died (exit code 7)" in said
    assert "restart 2 in 0.1 s" in said


async def test_a_killed_child_comes_back_healthy(supervisor: Supervisor) -> None:
    await supervisor.start_stage([spec("redis", SLEEP)])
    first = supervisor.processes[0].pid
    stop = asyncio.Event()
    watching = asyncio.create_task(supervisor.watch(stop))
    os.kill(first, signal.SIGKILL)
    await until(lambda: supervisor.processes[0].restarts == 1 and supervisor.processes[0].healthy)
    assert supervisor.processes[0].pid != first
    stop.set()
    await watching


async def test_health_is_followed(supervisor: Supervisor, tmp_path: Path, said: Said) -> None:
    ready = tmp_path / "ready"
    ready.touch()
    await supervisor.start_stage([spec("worker", SLEEP, file_exists(ready))])
    stop = asyncio.Event()
    watching = asyncio.create_task(supervisor.watch(stop))
    ready.unlink()
    await until(lambda: not supervisor.processes[0].healthy)
    ready.touch()
    await until(lambda: supervisor.processes[0].healthy)
    stop.set()
    await watching
    assert "worker: unhealthy: ready is not there yet" in said


async def test_stops_everything_the_last_first(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start_stage([spec("first", SLEEP)])
    await supervisor.start_stage([spec("second", SLEEP)])
    pids = [process.pid for process in supervisor.processes]
    await supervisor.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    lines = (tmp_path / "progress.log").read_text(encoding="utf-8")
    assert lines.index("second: stopped") < lines.index("first: stopped")


async def test_kills_what_does_not_listen_with_its_children(supervisor: Supervisor, tmp_path: Path, said: Said) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); {STUBBORN}"
    await supervisor.start_stage([spec("deaf", code, grace=0.3)])
    log = tmp_path / "logs" / "deaf.log"
    await until(lambda: log.read_text(encoding="utf-8").count("deaf") == 2)
    leader = psutil.Process(supervisor.processes[0].pid)
    family = [leader, *leader.children(recursive=True)]
    assert len(family) == 2
    await supervisor.stop()
    await until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family))
    assert "deaf: killed" in said


async def test_a_second_signal_does_not_wait(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.start_stage([spec("deaf", STUBBORN, grace=60)])
    await until(lambda: "deaf" in (tmp_path / "logs" / "deaf.log").read_text(encoding="utf-8"))
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.1)
    assert not stopping.done()
    supervisor.hurry()
    async with asyncio.timeout(5):
        await stopping


async def test_failing_start_shows_the_log_and_leaves_nothing(supervisor: Supervisor) -> None:
    good = spec("good", SLEEP)
    bad = spec("bad", "import sys; print('no database here'); sys.exit(3)", broken())
    with pytest.raises(StackError, match=r"(?s)bad ended with exit code 3.*no database here"):
        await supervisor.start_stage([good, bad])
    pids = [process.pid for process in supervisor.processes]
    await supervisor.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_never_healthy_says_why(supervisor: Supervisor) -> None:
    with pytest.raises(StackError, match=r"api was not healthy within 0 s \(not well\)"):
        await supervisor.start_stage([spec("api", SLEEP, broken(), seconds=0.3)])


async def test_children_do_not_get_the_terminals_signals(supervisor: Supervisor) -> None:
    await supervisor.start_stage([spec("one", SLEEP)])
    assert os.getsid(supervisor.processes[0].pid) != os.getsid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel ties a child to its parent")
async def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys
from pathlib import Path
from cli.stack.child import Child, ChildSpec
from cli.stack.health import file_exists
async def main():
    child = Child(ChildSpec('x', (sys.executable, '-c', {SLEEP!r}), file_exists(Path('/'))), Path({str(tmp_path)!r}))
    await child.start()
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(await parent.stdout.readline()))
    await until(lambda: SLEEP in child.cmdline())
    parent.kill()
    await parent.wait()
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_ready_file_of_an_earlier_life_does_not_count(tmp_path: Path) -> None:
    ready = tmp_path / "run" / "worker.ready"
    ready.parent.mkdir()
    ready.touch()
    child = Child(ChildSpec("worker", (sys.executable, "-c", SLEEP), file_exists(ready), ready_file=ready), tmp_path)
    await child.start()
    assert not ready.exists()
    await child.stop()
