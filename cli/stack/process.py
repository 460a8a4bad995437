"""One child process of the stack: started in a group of its own, logged to a file, stopped with its whole group."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

from cli import CommandError
from cli.stack.parent_death import ParentDeathWatcher
from cli.stack.state import ProcessState

HealthCheck = Callable[[], Awaitable[str | None]]  # None: healthy; else the problem in a few words
LOG_BYTES, LOG_FILES = 10_000_000, 3
_POLL_S = 0.1


@dataclass(frozen=True)
class Program:
    """What to run, and how to see that it works."""

    name: str
    argv: tuple[str, ...]
    health: HealthCheck | None  # None: the program ends by itself; exit code 0 is success
    env: Mapping[str, str] | None = None
    grace: float = 10.0  # seconds between SIGTERM and SIGKILL
    start_seconds: float = 120.0
    ready_file: Path | None = None


def rotate(path: Path, limit: int = LOG_BYTES, keep: int = LOG_FILES) -> None:
    """Rename a log that has grown too large to `.1`, and drop the oldest."""
    if path.exists() and path.stat().st_size >= limit:
        RotatingFileHandler(path, backupCount=keep, delay=True).doRollover()  # with `delay` it opens no new file


def tail(path: Path, lines: int) -> str:
    """The last lines of a log."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64_000))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def describe_exit(code: int) -> str:
    """An exit code as people read it."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class Child:
    """A process of the stack. It never restarts by itself: the supervisor decides that."""

    def __init__(self, program: Program, logs: Path, watcher: ParentDeathWatcher) -> None:
        self.program = program
        self.log = logs / f"{program.name}.log"
        self.restarts = 0
        self.healthy = False
        self.started = 0.0
        self._watcher = watcher
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether the process has started and not ended."""
        return self._process is not None and self._process.returncode is None

    def state(self) -> ProcessState:
        """For `state.json`; pid 0 means not running."""
        pid = self._process.pid if self._process is not None else 0
        return ProcessState(name=self.program.name, pid=pid, healthy=self.healthy, restarts=self.restarts)

    async def start(self) -> None:
        """Start the process; it dies with us."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        rotate(self.log)
        if self.program.ready_file is not None:
            self.program.ready_file.parent.mkdir(parents=True, exist_ok=True)
            self.program.ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._watcher.command(self.program.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.program.env) if self.program.env is not None else None,
                pass_fds=(self._watcher.pipe,),
                start_new_session=True,
            )
        self.started = time.monotonic()

    async def wait(self) -> int:
        """Wait for its end; the exit code."""
        if self._process is None:
            raise RuntimeError(f"{self.program.name} has not been started")
        code = await self._process.wait()
        self.healthy = False
        return code

    async def until_ready(self) -> None:
        """Wait for the first good health check; for a program that ends by itself, for its end.

        Raises:
            CommandError: it failed, or was not ready in time; with the end of its log.
        """
        deadline = self.started + self.program.start_seconds
        problem: str | None = "it has not ended"
        while time.monotonic() < deadline:
            if self.program.health is not None:
                problem = await self.program.health()
            if not self.running:
                code = await self.wait()
                if self.program.health is None and code == 0:
                    return
                raise self._failed(f"ended with {describe_exit(code)}")
            if problem is None:
                self.healthy = True
                return
            await asyncio.sleep(_POLL_S)
        raise self._failed(f"was not ready within {self.program.start_seconds:.0f} s ({problem})")

    def _failed(self, how: str) -> CommandError:
        end = "\n".join(f"    {line}" for line in tail(self.log, 12).splitlines())
        return CommandError(f"{self.program.name} {how}. The end of {self.log}:\n{end}")

    async def stop(self) -> bool:
        """Send SIGTERM, and kill what is left after the grace. False: it had to be killed."""
        code: int | None = None
        if self.running:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.program.grace):
                    code = await self.wait()
        await self.kill()
        return code not in (None, -signal.SIGKILL)

    async def kill(self) -> None:
        """Kill the process and what is left of its group."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            await self.wait()
            self._watcher.forget(self._process.pid)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; nothing happens if it is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
