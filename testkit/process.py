"""A process that a test starts: in a group of its own, logged to a file, killed when the tests end."""

import atexit
import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli.stack.parent_death import ParentDeathWatcher
from testkit.forked import Forked
from testkit.wait import LIMIT_S, until

_started: set["Process"] = set()


@functools.cache
def parent_death_watcher() -> ParentDeathWatcher:
    """The watcher that kills every started process when this one ends, even by SIGKILL."""
    return ParentDeathWatcher()


class Process:
    """A process that can be started again after its end."""

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.name = name
        self.log = log
        self._argv = tuple(argv)
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._popen: subprocess.Popen[bytes] | Forked | None = None
        self._mark = 0

    @property
    def pid(self) -> int:
        if self._popen is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._popen.pid

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._popen.poll() if self._popen is not None else None

    @property
    def running(self) -> bool:
        return self._popen is not None and self.code is None

    def start(self) -> None:
        """Start it, with its output appended to the log."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self.kill()  # its group may have processes left
        self._popen = self._spawn()
        _started.add(self)

    def _spawn(self) -> "subprocess.Popen[bytes] | Forked":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                parent_death_watcher().command(self._argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                pass_fds=(parent_death_watcher().pipe,),
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; nothing happens if it is gone."""
        if self._popen is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)

    def pause(self) -> None:
        """Stop it as if its machine hung."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        if self._popen is not None and self in _started:
            self.send(signal.SIGKILL)
            self._popen.wait(10)
            parent_death_watcher().forget(self._popen.pid)
            _started.discard(self)

    async def terminate(self, limit: float = LIMIT_S, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end and wait; its exit code.

        Raises:
            AssertionError: it did not end within `limit`; it is killed then.
        """
        if self._popen is None:
            raise RuntimeError(f"{self.name} has not been started")
        if self.running:
            self.send(number)
            self.resume()
        try:
            await until(lambda: self.code is not None, limit=limit, what=f"{self.name} ends on {number.name}")
        finally:
            self.kill()
        return self._popen.returncode

    def mark(self) -> None:
        """From here on `tail` shows the log."""
        self._mark = self.log.stat().st_size if self.log.exists() else 0

    def tail(self, lines: int = 60) -> str:
        """The last lines of the log since the mark."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(self._mark, self.log.stat().st_size - 100_000))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


class ModuleProcess(Process):
    """`python -m MODULE ARGUMENTS`, for a module of ours with a `main`."""

    def __init__(
        self, name: str, module: str, log: Path, env: Mapping[str, str], cwd: Path, arguments: Sequence[str] = ()
    ) -> None:
        super().__init__(name, (), log)
        self._fork = functools.partial(Forked, module, log, env, cwd, arguments)

    def _spawn(self) -> Forked:
        return self._fork(parent_death_watcher().pipe)


def kill_all() -> None:
    """Kill every process that a test has left running."""
    for process in list(_started):
        process.kill()


atexit.register(kill_all)
