"""A process killed with SIGKILL takes with it everything that it started, in the stack and in the tests."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.stack.parent_death import ParentDeathWatcher
from testkit.servers import ROOT
from testkit.wait import until

pytestmark = pytest.mark.integration  # it starts processes

#: Prints its pid and that of a child of its own; neither can be ended by SIGTERM.
FAMILY = (
    "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "child = subprocess.Popen(['sleep', '60']); print(os.getpid(), child.pid, flush=True); time.sleep(60)"
)
STACK_PARENT = f"""
    import asyncio, sys
    from pathlib import Path
    from cli.stack.parent_death import ParentDeathWatcher
    from cli.stack.process import Child, Program

    async def main() -> None:
        child = Child(Program("x", (sys.executable, "-c", {FAMILY!r}), None), Path("."), ParentDeathWatcher())
        await child.start()
        await asyncio.sleep(60)

    asyncio.run(main())
"""
TESTKIT_PARENT = f"""
    import sys, time
    from pathlib import Path
    from testkit.process import Process

    Process("x", [sys.executable, "-c", {FAMILY!r}], Path("x.log")).start()
    time.sleep(60)
"""
FORKED_PARENT = """
    import time
    from pathlib import Path
    from testkit.process import ModuleProcess

    if __name__ == "__main__":
        ModuleProcess("x", "family", Path("x.log"), {"PATH": "/usr/bin:/bin"}, Path(".")).start()
        time.sleep(60)
"""


def start(argv: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(argv, **options)


async def sleeping(watcher: ParentDeathWatcher) -> "subprocess.Popen[bytes]":
    """A command that has registered itself."""
    process = start(watcher.command(["sleep", "60"]), pass_fds=(watcher.pipe,), start_new_session=True)
    await until(lambda: psutil.Process(process.pid).name() == "sleep", what="the command begins")
    return process


def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("source", [STACK_PARENT, TESTKIT_PARENT, FORKED_PARENT], ids=["stack", "testkit", "forked"])
async def test_a_killed_parent_leaves_nothing(tmp_path: Path, source: str) -> None:
    """Also children of children, and processes that do not react: one is stopped, as if its machine hung."""
    (tmp_path / "family.py").write_text(f"def main() -> None:\n    {FAMILY}\n", encoding="utf-8")
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(source), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    parent = start([sys.executable, str(script)], cwd=tmp_path, env=environment)
    try:
        log = tmp_path / "x.log"
        line = await until(lambda: log.exists() and log.read_text().strip(), limit=60, what="the child prints its pids")
        pids = [int(pid) for pid in str(line).split()]
        os.kill(pids[0], signal.SIGSTOP)
    finally:
        parent.kill()
        parent.wait()
    await until(lambda: all(ended(pid) for pid in pids), what=f"processes {pids} end")


async def test_closing_kills_what_is_left_and_waits() -> None:
    watcher = ParentDeathWatcher()
    left = await sleeping(watcher)
    watcher.close()
    watcher.close()
    assert left.wait(5) == -signal.SIGKILL


async def test_a_forgotten_group_is_left_alone() -> None:
    """Its number may belong to another process by now."""
    watcher = ParentDeathWatcher()
    other = await sleeping(watcher)
    watcher.forget(other.pid)
    watcher.close()
    assert other.poll() is None
    other.kill()
    other.wait()
