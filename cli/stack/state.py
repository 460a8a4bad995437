"""What the supervisor leaves in the home: `state.json` for others to read, and the lock that makes it the only one."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, Field, ValidationError

from cli.stack.errors import StackError

Part = Literal["temporal", "redis", "database", "model"]


class Endpoints(BaseModel):
    """Where the parts of the stack are. Passwords in URLs are masked: this is written to disk and shown."""

    api_url: str = ""
    temporal_address: str = ""
    temporal_ui_url: str = ""
    redis_url: str = ""
    database_url: str = ""
    model_base_url: str = ""


class ProcessState(BaseModel):
    """One child process; `created` tells it from a later process that got the same pid."""

    name: str
    pid: int
    created: float
    healthy: bool
    restarts: int


class StackState(BaseModel):
    """The stack as its supervisor last saw it."""

    status: Literal["starting", "ready", "stopping", "stopped"] = "starting"
    supervisor_pid: int = 0
    ports: dict[str, int] = Field(default_factory=dict)
    embedded: list[Part] = Field(default_factory=list)
    endpoints: Endpoints = Field(default_factory=Endpoints)
    processes: list[ProcessState] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_state(home: Path, state: StackState) -> None:
    """Store the state of the stack in its home."""
    write_atomic(home / "state.json", state.model_dump_json(indent=2) + "\n")


def read_state(home: Path) -> StackState | None:
    """The state in this home, or None where no stack has run yet.

    Raises:
        StackError: the file is there but is no state.
    """
    path = home / "state.json"
    try:
        return StackState.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StackError(f"{path} is not readable as a state ({error.error_count()} defects); delete it") from error


class HomeLock:
    """Held by the one supervisor of a home for as long as it lives; `supervisor.pid` says who that is."""

    def __init__(self, home: Path) -> None:
        self._path = home / "supervisor.pid"
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Take the lock and write our pid; False when another supervisor has it.

        Raises:
            StackError: the home cannot be made or written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StackError(f"{self._path.parent} cannot be written ({error.strerror}); set LONGHAUL_HOME") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle
        return True

    def release(self) -> None:
        """Give the lock back; the file stays, because deleting it would race with the next owner."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def running_supervisor(home: Path) -> int | None:
    """The pid of the supervisor that holds this home, or None."""
    path = home / "supervisor.pid"
    try:
        handle = os.open(path, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(handle, 32).decode().strip()
        return int(text) if text else None
    finally:
        os.close(handle)
    return None


__all__ = [
    "Endpoints",
    "HomeLock",
    "Part",
    "ProcessState",
    "StackState",
    "read_state",
    "running_supervisor",
    "write_atomic",
    "write_state",
]
