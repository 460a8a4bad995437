"""Commands and Python in the session's workspace, inside a sandbox. Off unless `LONGHAUL_SHELL=on`."""

import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from pydantic import BaseModel, Field

from longhaul.sandbox.jobs import Job, JobError, Jobs, JobStatus
from longhaul.sandbox.output import Output, redacted, secrets_of
from longhaul.sandbox.sandbox import Limits, Sandbox, SandboxError
from longhaul.settings import Settings
from longhaul.tools import Tool, ToolContext, ToolError

#: In the foreground; a tool's call ends after `LONGHAUL_TOOL_TIMEOUT`, 300 s.
SECONDS_MAX = 280.0
BACKGROUND = "Run it in the background: returns an id for bash_status and bash_kill at once"
JOBS_MAX = 4
Result = TypeVar("Result")


class BashExec(BaseModel):
    command: str = Field(min_length=1, max_length=50_000, description="For bash, in the workspace")
    timeout: float = Field(120, gt=0, le=SECONDS_MAX, description="Seconds; longer ones belong in the background")
    background: bool = Field(default=False, description=BACKGROUND)


class PythonExec(BaseModel):
    code: str = Field(min_length=1, max_length=200_000, description="A Python program; print what you want to see")
    timeout: float = Field(120, gt=0, le=SECONDS_MAX, description="Seconds; longer ones belong in the background")
    background: bool = Field(default=False, description=BACKGROUND)


class BashStatus(BaseModel):
    job_id: str = Field(max_length=64)
    offset: int = Field(0, ge=0, description="Byte of the output to read on from")


class BashKill(BaseModel):
    job_id: str = Field(max_length=64)


class Shell:
    """The tools of one worker process."""

    def __init__(self, settings: Settings) -> None:
        limits = Limits(
            memory_bytes=settings.shell_memory_bytes,
            processes=settings.shell_processes,
            disk_bytes=settings.workspace_max_bytes,
        )
        self._sandbox = Sandbox(settings.shell_bubblewrap, limits, network=settings.shell_network)
        self._secrets = secrets_of(settings)
        self._jobs = Jobs(
            self._sandbox, settings.jobs_folder, max_seconds=settings.shell_job_seconds, max_running=JOBS_MAX
        )

    @property
    def tools(self) -> list[Tool]:
        running, ending = (
            "Run a command in a sandbox whose current folder is the workspace.",
            "End a background command.",
        )
        status = "How a command in the background stands, and what it has said."
        python = "Run a Python program in the same sandbox."
        return [
            Tool("bash_exec", running, BashExec, self._bash, repeatable=False, changes=True, would="run {command}"),
            Tool("python_exec", python, PythonExec, self._python, repeatable=False, changes=True, would="run {code}"),
            Tool("bash_status", status, BashStatus, self._status),
            Tool("bash_kill", ending, BashKill, self._kill, changes=True, would="end {job_id}"),
        ]

    async def _bash(self, arguments: BashExec, context: ToolContext) -> str:
        program = ["/bin/bash", "-c", arguments.command]
        if arguments.background:
            return await self._start(context, arguments.command, program, b"")
        return await self._run(context, program, b"", arguments.timeout)

    async def _python(self, arguments: PythonExec, context: ToolContext) -> str:
        program, code = ["/usr/bin/env", "python3", "-"], arguments.code.encode("utf-8", "replace")
        if arguments.background:
            return await self._start(context, arguments.code, program, code)
        return await self._run(context, program, code, arguments.timeout)

    async def _run(self, context: ToolContext, program: Sequence[str], stdin: bytes, seconds: float) -> str:
        output = Output(self._secrets)

        def said(chunk: bytes) -> None:
            output.add(chunk)
            context.progress(output.last_line)

        started = time.monotonic()
        running = self._sandbox.run(context.workspace, program, said, seconds=seconds, stdin=stdin)
        ended = await _explained(running)
        text = output.text.rstrip("\n")
        if ended.exceeded:
            advice = " Run long commands in the background." if "time" in ended.exceeded else ""
            raise ToolError(f"{text}\n[it was ended: it exceeded {ended.exceeded}.{advice}]")
        return f"{text}\n[exit code {ended.exit_code}, {time.monotonic() - started:.1f} s]"

    async def _start(self, context: ToolContext, command: str, program: Sequence[str], stdin: bytes) -> str:
        starting = self._jobs.start(_root(context), context.workspace, command, program, stdin)
        job = await _explained(starting)
        return f"It runs in the background as {job.id}. Ask bash_status(job_id={job.id!r}) for its output."

    async def _status(self, arguments: BashStatus, context: ToolContext) -> str:
        job = await _explained(self._jobs.state(_root(context), arguments.job_id))
        text, offset = await _explained(self._jobs.output(_root(context), job.id, arguments.offset))
        more = f"; read on with offset={offset}" if text else ""
        return f"{redacted(text, self._secrets).rstrip()}\n[{_standing(job)}{more}]"

    async def _kill(self, arguments: BashKill, context: ToolContext) -> str:
        return f"[{_standing(await _explained(self._jobs.kill(_root(context), arguments.job_id)))}]"


def shell_tools(settings: Settings) -> list[Tool]:
    """The tools of the shell; none where it is off."""
    return Shell(settings).tools if settings.shell == "on" else []


def _root(context: ToolContext) -> str:
    """Jobs belong to a workspace, and so to all sessions of its tree."""
    return context.workspace.name


def _standing(job: Job) -> str:
    match job.status:
        case JobStatus.RUNNING:
            return f"{job.id} runs for {time.time() - job.started_at:.0f} s now"
        case JobStatus.ENDED:
            return f"{job.id} has ended with exit code {job.exit_code}"
        case JobStatus.KILLED:
            return f"{job.id} was ended: {job.reason}"
    return f"{job.id} was lost: {job.reason}. Start it again if it is needed"


async def _explained(work: Awaitable[Result]) -> Result:
    try:
        return await work
    except (SandboxError, JobError) as error:
        raise ToolError(str(error)) from error
