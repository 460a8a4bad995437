"""What a supervisor keeps in its home: `state.json` for other commands, and the lock that makes it the only one."""

import fcntl
import os
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from cli import CommandError
from longhaul.settings.values import without_secrets

Component = Literal["temporal", "redis", "database", "model"]  # what a setting can place elsewhere
ShownUrl = Annotated[str, AfterValidator(without_secrets)]
_LOCK_TRIES = 10


class Endpoints(BaseModel):
    """Where everything is. Secrets in URLs are masked: this is written to disk and shown."""

    api_url: str = ""
    temporal_address: str = ""
    temporal_ui_url: ShownUrl = ""
    redis_url: ShownUrl = ""
    database_url: ShownUrl = ""
    model_base_url: ShownUrl = ""


class ProcessState(BaseModel):
    """One child process."""

    name: str
    pid: int
    healthy: bool
    restarts: int


class StackState(BaseModel):
    """The stack as its supervisor last saw it."""

    status: Literal["starting", "ready", "stopping", "stopped"] = "starting"
    supervisor_pid: int = 0
    ports: dict[str, int] = Field(default_factory=dict)
    embedded: list[Component] = Field(default_factory=list)
    endpoints: Endpoints = Field(default_factory=Endpoints)
    processes: list[ProcessState] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part of it.

    Raises:
        OSError: it cannot be written; what was there before is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_state(home: Path, state: StackState) -> None:
    """Store the state for other commands."""
    write_whole(home / "state.json", state.model_dump_json(indent=2) + "\n")


def read_state(home: Path) -> StackState | None:
    """The state in this home, or None where no stack has run yet.

    Raises:
        CommandError: the file cannot be understood.
    """
    path = home / "state.json"
    try:
        return StackState.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CommandError(f"{path} is not readable as a state ({error.error_count()} defects); delete it") from error


def claim_home(home: Path) -> int | None:
    """Make this process the supervisor of a home, and write its pid there; None: the home has a supervisor.

    Returns the file descriptor that holds the lock. A supervisor never closes it: the kernel frees the lock when the
    process has ended, so that a free lock means that nothing of it runs any more. The file stays: deleting it would
    race with the next owner.

    Raises:
        CommandError: the home cannot be made or written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle = os.open(home / "supervisor.pid", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CommandError(f"{home} cannot be written ({error.strerror}); set LONGHAUL_HOME") from error
    if not _locked(handle):
        os.close(handle)
        return None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def _locked(handle: int) -> bool:
    """Take the lock. `running_supervisor` holds it for a moment too, which does not make that process a supervisor."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def running_supervisor(home: Path) -> int | None:
    """The pid of the supervisor of this home, or None."""
    try:
        handle = os.open(home / "supervisor.pid", os.O_RDWR)
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


def running_state(home: Path) -> StackState | None:
    """The state of the stack that runs in this home, or None."""
    return read_state(home) if running_supervisor(home) is not None else None
