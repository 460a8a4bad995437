"""A worker's journal: the runs that it works for, in a file that stays when the process is killed.

The server notices a dead worker only by missing heartbeats. Other workers on the same host see at once that the lock of
its journal is free, and report its activities as failed (`activities/dead_workers.py`).

The journal names runs and not activities: an activity that the server has given to a process, and that had not begun
there when the process died, is known to the server only.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import platform
import secrets
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from temporalio import activity
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    UnsandboxedWorkflowRunner,
    WorkflowInstance,
    WorkflowInstanceDetails,
)

log = logging.getLogger(__name__)
# An entry takes about 130 bytes. Each has a place of its own, which is used again: the file does not grow with time.
PLACE_BYTES = 512
# The report of an activity's end leaves the process a little later than the activity ends here.
REPORTED_AFTER_S = 1.0
OLD_S = 86_400.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Run(BaseModel):
    """A run of a workflow."""

    model_config = ConfigDict(frozen=True)

    workflow_id: str
    run_id: str


@dataclass(frozen=True)
class Journals:
    """All journals in a folder. `group`: those whose locks and runs this process can judge."""

    folder: Path
    group: str

    @classmethod
    def of(cls, folder: Path, temporal: str) -> "Journals":
        """The journals of workers on this host, since it was started, that work for this Temporal namespace.

        Other hosts may have the folder too, and not every shared file system shows their locks here.
        """
        try:
            host = BOOT_ID.read_text().strip()
        except OSError:  # not Linux
            host = platform.node()
        return cls(folder, hashlib.sha256(f"{host} {temporal}".encode()).hexdigest()[:16])

    def own(self, identity: str) -> "Journal":
        """A journal for this process, which has this identity at the server; open it with `with`."""
        return Journal(self.folder, f"{self.group}.{secrets.token_hex(4)}.{identity}")

    def of_the_dead(self) -> list["DeadJournal"]:
        """The journals whose processes are dead, each locked until it is closed.

        Raises:
            OSError: one of them cannot be opened.
        """
        found = []
        for path in sorted(self.folder.glob(f"{self.group}.*")):
            try:
                file = os.open(path, os.O_RDWR)
            except FileNotFoundError:  # another worker has reported and removed it
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its process lives, or another worker reports it now
                os.close(file)
            else:
                found.append(DeadJournal(path, file))
        return found

    def remove_old(self) -> None:
        """Remove what the workers of other hosts, and those from before the last boot, left a day ago.

        Raises:
            OSError: the folder cannot be read.
        """
        oldest = time.time() - OLD_S
        for path in self.folder.glob("*"):
            with suppress(FileNotFoundError):  # another worker was faster
                if not path.name.startswith(self.group) and path.stat().st_mtime < oldest:
                    path.unlink()


@dataclass(frozen=True)
class DeadJournal:
    """What a dead process has left."""

    path: Path
    file: int

    @property
    def identity(self) -> str:
        """The process, as the server knows it."""
        return self.path.name.split(".", 2)[2]

    def read(self) -> tuple[set[Run], int]:
        """The runs, and how many entries cannot be read.

        Raises:
            OSError: the file cannot be read.
        """
        runs, unreadable = set(), 0
        for line in os.pread(self.file, os.fstat(self.file).st_size, 0).split(b"\n"):
            if entry := line.strip(b" \0"):
                try:
                    runs.add(Run.model_validate_json(entry))
                except ValidationError:
                    unreadable += 1
        return runs, unreadable

    def remove(self) -> None:
        """Remove the file: its activities have been reported.

        Raises:
            OSError: the file cannot be removed.
        """
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock. Until it has been removed, other workers find the journal again."""
        os.close(self.file)


@dataclass
class Journal:
    """This process' journal. Where it cannot be written, a warning says so once, and all work goes on without it."""

    folder: Path
    name: str
    _file: int | None = None
    _places: int = 0
    _free: list[int] = field(default_factory=list)
    _warned: bool = False

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Other workers must not see it before it is locked: they would take this process for dead.
            unseen = self.folder / f".{self.name}"
            self._file = os.open(unseen, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unseen.rename(self.folder / self.name)
        except OSError as error:
            self._warn(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close it. It stays if this process fails, because its activities may not have been reported."""
        if self._file is None:
            return
        if kind is None:
            with suppress(OSError):  # another worker removes it
                (self.folder / self.name).unlink()
        file, self._file = self._file, None
        os.close(file)

    def note(self, run: Run) -> int:
        """Enter a run; the place to `clear` later."""
        try:
            place = self._free.pop()
        except IndexError:
            place, self._places = self._places, self._places + 1
        self._write(place, run.model_dump_json().encode())
        return place

    def clear(self, place: int) -> None:
        """Take an entry out; from any thread."""
        self._write(place, b"")
        self._free.append(place)

    @contextmanager
    def noting(self, run: Run) -> Iterator[None]:
        """Keep a run in the journal while its activity runs, and until the activity's end has been reported."""
        place = self.note(run)
        try:
            yield
        finally:
            asyncio.get_running_loop().call_later(REPORTED_AFTER_S, self.clear, place)

    def _write(self, place: int, entry: bytes) -> None:
        if self._file is None or len(entry) >= PLACE_BYTES:
            return
        try:
            os.pwrite(self._file, entry.ljust(PLACE_BYTES - 1) + b"\n", place * PLACE_BYTES)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "the journal %s cannot be written (%s). If this worker is killed, its turns wait for "
                "LONGHAUL_HEARTBEAT_TIMEOUT. Make LONGHAUL_HOME writable, with space left.",
                self.folder / self.name,
                error,
            )


class JournalInterceptor(Interceptor):
    """Keeps the run of every activity in the journal. Local ones are part of a workflow task."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Noting(next, self._journal)


class _Noting(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, journal: Journal) -> None:  # noqa: A002
        super().__init__(next)
        self._journal = journal

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        if info.is_local or info.workflow_id is None or info.workflow_run_id is None:
            return await super().execute_activity(input)
        with self._journal.noting(Run(workflow_id=info.workflow_id, run_id=info.workflow_run_id)):
            return await super().execute_activity(input)


class JournalRunner(UnsandboxedWorkflowRunner):
    """Keeps every run in the journal whose workflow tasks this worker gets, as long as it has the run in memory."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance = super().create_instance(det)
        place = self._journal.note(Run(workflow_id=det.info.workflow_id, run_id=det.info.run_id))
        weakref.finalize(instance, self._journal.clear, place).atexit = False
        return instance
