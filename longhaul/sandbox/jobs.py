"""Commands in the background. They outlive the call and the turn that started them, but not their worker.

A job is a folder that all workers see: its output, its state, and a note to end it. So any worker answers for it. The
worker that runs it touches the state; if nobody does, the worker has died, and the kernel has ended the command.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from longhaul.sandbox.sandbox import Ended, Sandbox, SandboxError

log = logging.getLogger(__name__)
OUTPUT_MAX_BYTES = 20_000_000
READ_BYTES = 20_000
LOOK_S = 0.5
#: Touched with every look; a busy worker or a slow shared folder may be late.
SILENT_MAX_S = 60.0


class JobStatus(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    ENDED = "ended"
    KILLED = "killed"
    LOST = "lost"


class Job(BaseModel):
    """What is known about a job. `reason`: why it was ended, if it was."""

    id: str
    command: str
    status: JobStatus = JobStatus.RUNNING
    exit_code: int | None = None
    reason: str = ""
    started_at: float


class JobError(Exception):
    """A job cannot be started, or there is none; the text is written for the model."""


class Jobs:
    """The jobs that this process runs, and those of others as far as their folders show."""

    def __init__(self, sandbox: Sandbox, folder: Path, *, max_seconds: float, max_running: int) -> None:
        self._sandbox = sandbox
        self._folder = folder
        self._max_seconds = max_seconds
        self._max_running = max_running
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, root: str, workspace: Path, command: str, program: Sequence[str], stdin: bytes) -> Job:
        """Start a command in the workspace of the session tree `root`.

        Raises:
            JobError: too many run.
            SandboxError: no sandbox can be had.
        """
        await self._sandbox.check()
        running = [job for job in await asyncio.to_thread(self._all, root) if job.status is JobStatus.RUNNING]
        if self._max_running and len(running) >= self._max_running:
            ids = ", ".join(job.id for job in running)
            raise JobError(f"{len(running)} commands run in the background already: {ids}. Wait for one, or end it.")
        job = Job(id=uuid4().hex[:12], command=command[:500], started_at=time.time())
        place = self._folder / root / job.id
        await asyncio.to_thread(place.mkdir, parents=True)
        await asyncio.to_thread(_write, place, job)
        task = asyncio.create_task(self._run(place, job, workspace, program, stdin))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def state(self, root: str, job_id: str) -> Job:
        """How a job of a session tree stands.

        Raises:
            JobError: there is none.
        """
        job = await asyncio.to_thread(_read, self._place(root, job_id))
        if job is None:
            raise JobError(f"There is no command {job_id!r} in the background.")
        return job

    async def output(self, root: str, job_id: str, offset: int) -> tuple[str, int]:
        """What a job has said from a byte on, and the byte to read on from."""
        data = await asyncio.to_thread(_bytes_from, self._place(root, job_id) / "output", offset)
        return data.decode("utf-8", "replace"), offset + len(data)

    async def kill(self, root: str, job_id: str, patience_s: float = 10.0) -> Job:
        """End a job, on whatever worker it runs, and wait a moment for its end.

        Raises:
            JobError: there is none.
        """
        job = await self.state(root, job_id)
        if job.status is JobStatus.RUNNING:
            await asyncio.to_thread((self._place(root, job_id) / "kill").touch)
        until = time.monotonic() + patience_s
        while job.status is JobStatus.RUNNING and time.monotonic() < until:
            await asyncio.sleep(LOOK_S / 2)
            job = await self.state(root, job_id)
        return job

    async def close(self) -> None:
        """End all jobs of this process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _place(self, root: str, job_id: str) -> Path:
        if not job_id.isalnum():
            raise JobError(f"There is no command {job_id!r} in the background.")
        return self._folder / root / job_id

    def _all(self, root: str) -> list[Job]:
        folder = self._folder / root
        return [job for place in folder.iterdir() if (job := _read(place))] if folder.is_dir() else []

    async def _run(self, place: Path, job: Job, workspace: Path, program: Sequence[str], stdin: bytes) -> None:
        """Run a job to its end, and note how it ended; also when this worker is asked to stop."""
        job = job.model_copy(update={"status": JobStatus.LOST, "reason": "its worker was stopped"})
        with contextlib.ExitStack() as stack:
            try:
                out = stack.enter_context(await asyncio.to_thread((place / "output").open, "wb", buffering=0))
                running = asyncio.create_task(
                    self._sandbox.run(workspace, program, _Limited(out).add, seconds=self._max_seconds, stdin=stdin)
                )
                try:
                    job = await self._watched(place, job, running)
                finally:
                    running.cancel()
                    await asyncio.gather(running, return_exceptions=True)
            except (SandboxError, OSError) as error:
                log.warning("the background command %s ended by an error: %s", job.id, error)
                job = job.model_copy(update={"reason": str(error)})
            finally:
                with contextlib.suppress(OSError):  # its session was deleted, and the folder with it
                    _write(place, job)

    async def _watched(self, place: Path, job: Job, running: "asyncio.Task[Ended]") -> Job:
        """Wait for the end of a job, or for the note to end it."""
        while not (await asyncio.wait({running}, timeout=LOOK_S))[0]:
            if not await asyncio.to_thread(_alive, place):
                return job.model_copy(update={"status": JobStatus.KILLED, "reason": "as it was asked for"})
        ended = running.result()
        status = JobStatus.KILLED if ended.exceeded else JobStatus.ENDED
        return job.model_copy(update={"status": status, "exit_code": ended.exit_code, "reason": ended.exceeded})


class _Limited:
    """Writes to a file up to a limit; what follows is dropped, so that the command never waits."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._room = OUTPUT_MAX_BYTES

    def add(self, said: bytes) -> None:
        if self._room > 0:
            self._file.write(said[: self._room])
            self._room -= len(said)


def _alive(place: Path) -> bool:
    """Touch a job's state for those who look from elsewhere; False: it is to end, or its folder is gone."""
    try:
        os.utime(place / "state.json")
    except OSError:
        return False
    return place.is_dir() and not (place / "kill").exists()


def _write(place: Path, job: Job) -> None:
    new = place / "state.new"
    new.write_text(job.model_dump_json(), encoding="utf-8")
    new.replace(place / "state.json")


def _read(place: Path) -> Job | None:
    try:
        file = place / "state.json"
        job = Job.model_validate_json(file.read_bytes())
        silent_for = time.time() - file.stat().st_mtime
    except (OSError, ValidationError):
        return None
    if job.status is JobStatus.RUNNING and silent_for > SILENT_MAX_S:
        return job.model_copy(update={"status": JobStatus.LOST, "reason": "its worker died"})
    return job


def _bytes_from(file: Path, offset: int) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read(READ_BYTES)
    except FileNotFoundError:
        return b""
