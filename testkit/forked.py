"""Our own modules as processes, forked from one that has imported them: a start costs milliseconds instead of seconds.

They are processes like any other, to be killed, stopped and drained. That the product starts by its commands, from
nothing, is for the tests of the stack.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from testkit import guard

PRELOAD = [
    *("worker", "api.__main__", "cli.app", "cli.repair", "testkit.forked"),
    *("httpcore2", "uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.websockets.auto"),  # with the first use
]
READY_S = 60.0
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOAD)


class Forked:
    """A running `python -m MODULE ARGUMENTS`, with the words of `subprocess.Popen`. It dies with who started it."""

    def __init__(
        self, module: str, log: Path, env: Mapping[str, str], cwd: Path, arguments: Sequence[str] = ()
    ) -> None:
        self._process = _context.Process(target=_run, args=(module, log, dict(env), cwd, tuple(arguments)), daemon=True)
        self._process.start()
        if self._process.pid is None:
            raise RuntimeError(f"{module} has no process id")
        self.pid = self._process.pid
        self._until_leader()

    @property
    def returncode(self) -> int:
        code = self.poll()
        if code is None:
            raise RuntimeError("it still runs")
        return code

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait for its end, `timeout` seconds at most."""
        self._process.join(timeout)
        return self.returncode

    def _until_leader(self) -> None:
        """Signals go to its group, so it must have one of its own before anybody sends one."""
        deadline = time.monotonic() + READY_S
        while self.poll() is None and os.getpgid(self.pid) != self.pid:
            if time.monotonic() > deadline:
                raise RuntimeError(f"process {self.pid} does not begin")
            time.sleep(0.001)


def _run(module: str, log: Path, env: Mapping[str, str], cwd: Path, arguments: Sequence[str]) -> None:
    os.setsid()
    guard.tie(os.getppid())
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    with contextlib.suppress(OSError):  # not on every system
        Path("/proc/self/comm").write_text(module[:15])
    sys.exit(importlib.import_module(module).main())
