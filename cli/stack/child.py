"""One child process: started in a session of its own, logged to a file, stopped with its whole process group."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from cli.stack import guard
from cli.stack.errors import StackError
from cli.stack.health import HealthCheck
from cli.stack.state import ProcessState

LOG_BYTES = 10_000_000
LOG_FILES = 3
_POLL = 0.1
_GUARD = str(Path(guard.__file__).resolve())


@dataclass(frozen=True)
class ChildSpec:
    """What to run and how to see that it works."""

    name: str
    argv: tuple[str, ...]
    health: HealthCheck
    env: Mapping[str, str] | None = None
    grace: float = 10.0
    start_seconds: float = 120.0
    ready_file: Path | None = None


def rotate(path: Path, limit: int = LOG_BYTES, keep: int = LOG_FILES) -> None:
    """Put a log that has grown too large aside, and drop the oldest."""
    if not path.exists() or path.stat().st_size < limit:
        return
    for number in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    path.replace(path.with_name(f"{path.name}.1"))


def tail(path: Path, lines: int) -> str:
    """The last lines of a log."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64_000))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


class Child:
    """A process under supervision. It never restarts by itself: that is the supervisor's decision."""

    def __init__(self, spec: ChildSpec, logs: Path) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.restarts = 0
        self.healthy = False
        self.started = 0.0
        self._created = 0.0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The pid, 0 before the first start."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    def state(self) -> ProcessState:
        """For `state.json`."""
        return ProcessState(
            name=self.spec.name, pid=self.pid, created=self._created, healthy=self.healthy, restarts=self.restarts
        )

    async def start(self) -> None:
        """Start the process, tied to our life by the guard."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        rotate(self.log)
        if self.spec.ready_file is not None:
            self.spec.ready_file.parent.mkdir(parents=True, exist_ok=True)
            self.spec.ready_file.unlink(missing_ok=True)
        guarded = (sys.executable, "-I", "-S", _GUARD, str(os.getpid()), *self.spec.argv)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *guarded,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.spec.env) if self.spec.env is not None else None,
                start_new_session=True,
            )
        self.started = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):  # gone already: `wait` will tell
            self._created = psutil.Process(self._process.pid).create_time()

    async def wait(self) -> int:
        """Wait for its end."""
        if self._process is None:
            raise RuntimeError(f"{self.spec.name} has not been started")
        code = await self._process.wait()
        self.healthy = False
        return code

    async def until_healthy(self) -> None:
        """Wait for the first good health check.

        Raises:
            StackError: it ended, or was not healthy in time; with the end of its log.
        """
        deadline = time.monotonic() + self.spec.start_seconds
        while True:
            problem = await self.spec.health()
            if self._process is None or self._process.returncode is not None:
                raise self._failed(f"ended with {describe_exit(self._process.returncode if self._process else None)}")
            if problem is None:
                self.healthy = True
                return
            if time.monotonic() > deadline:
                raise self._failed(f"was not healthy within {self.spec.start_seconds:.0f} s ({problem})")
            await asyncio.sleep(_POLL)

    def _failed(self, how: str) -> StackError:
        end = "\n".join(f"    {line}" for line in tail(self.log, 12).splitlines())
        return StackError(f"{self.spec.name} {how}. The end of {self.log}:\n{end}")

    async def stop(self, grace: float | None = None) -> bool:
        """Ask it to end, then kill what is left of its group; False when killing was needed."""
        process = self._process
        if process is None:
            return True
        willing = True
        if process.returncode is None:
            self._signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(self.spec.grace if grace is None else grace):
                    await process.wait()
            except TimeoutError:
                willing = False
        self._signal(signal.SIGKILL)  # the rest of the group, whatever the leader did
        await process.wait()
        self.healthy = False
        return willing

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def describe_exit(code: int | None) -> str:
    """An exit code as people read it."""
    if code is None:
        return "no exit code"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


__all__ = ["Child", "ChildSpec", "describe_exit", "rotate", "tail"]
