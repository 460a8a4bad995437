"""Our own modules as processes, forked from one that has imported them: a start costs milliseconds instead of seconds.

They are processes like any other, to be killed, stopped and drained. The tests of the stack start the product by its
commands instead.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from cli.stack.parent_death import register

PRELOAD = [
    *("worker", "api.__main__", "cli.app", "longhaul.turns.repair", "testkit.forked"),
    *("httpcore2", "uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.websockets.auto"),  # with the first use
]
READY_S = 60.0
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOAD)


class Forked:
    """A running `python -m MODULE ARGUMENTS`, with the interface of `subprocess.Popen`. It dies with its parent."""

    def __init__(
        self, module: str, log: Path, env: Mapping[str, str], cwd: Path, arguments: Sequence[str], watcher_pipe: int
    ) -> None:
        watcher: Connection[bytes, bytes] = Connection(os.dup(watcher_pipe), readable=False)
        parameters = (module, log, dict(env), cwd, tuple(arguments), watcher)
        self._process = _context.Process(target=_run, args=parameters, daemon=True)
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
        """Wait until it leads a group of its own: signals go to its group."""
        deadline = time.monotonic() + READY_S
        while self.poll() is None and os.getpgid(self.pid) != self.pid:
            if time.monotonic() > deadline:
                raise RuntimeError(f"process {self.pid} does not begin")
            time.sleep(0.001)


def _run(
    module: str,
    log: Path,
    env: Mapping[str, str],
    cwd: Path,
    arguments: Sequence[str],
    watcher: "Connection[bytes, bytes]",
) -> None:
    os.setsid()
    register(watcher.fileno())
    watcher.close()
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
