"""Runs tools on a tool worker: without database, Redis and model. The API has the arguments, and takes the results."""

import time

from temporalio import activity

from activities.attempt import last_checkpoint
from activities.remote_api import RemoteAttempt, ToolCallApi
from activities.tool_progress import ToolReports
from activities.tool_results import ToolResult
from activities.tool_run import ToolRun, ToolState
from longhaul import temporal
from longhaul.contracts import Empty, RunRemoteTool, RunTool, ToolProgress, ToolStatus
from longhaul.llm import prompts
from longhaul.remote_tools.keys import Claim
from longhaul.tools import Registry, ToolContext, ToolError
from longhaul.tools.context import NOT_ON_TOOL_WORKERS, SharedFile


class RemoteReports(ToolReports):
    """Reports of a call, on their way to the API."""

    def __init__(self, attempt: RemoteAttempt) -> None:
        super().__init__()
        self._attempt = attempt

    async def show(self, progress: ToolProgress, *, last: bool = False) -> None:  # noqa: ARG002
        await self._attempt.report(progress)


class RemoteToolActivities:
    """Runs the tools of a tool worker."""

    def __init__(self, api: ToolCallApi, tools: Registry) -> None:
        self._api = api
        self._tools = tools

    @activity.defn(name=temporal.RUN_REMOTE_TOOL_ACTIVITY)
    async def run_remote_tool(self, remote: RunRemoteTool) -> Empty:
        """One tool call, its result given to the API before this returns. A tool's failure is a result.

        Raises:
            ApplicationError: `ToolTryFailed` (Temporal retries), `ToolWorkerRefused`, `StorageUnavailable`,
                `HandedOver`.
        """
        attempt = await self._api.begin(Claim(remote.remote_call_id, activity.info().attempt))
        if attempt is not None:
            await attempt.give(await self._result(remote.call, attempt))
        return Empty()

    async def _result(self, call: RunTool, attempt: RemoteAttempt) -> ToolResult:
        started = time.monotonic()
        try:
            tool = self._tools.find(call.name)
            if tool is None or tool.run is None:
                raise ToolError(prompts.NOT_ON_THIS_WORKER.format(name=call.name))
            parsed = tool.parse(attempt.arguments)
            run = ToolRun(call, tool, last_checkpoint(ToolState))
            if run.is_lost:
                output, status = prompts.LOST_CALL, ToolStatus.LOST
            else:
                reports = RemoteReports(attempt)
                output, status = await run.start(parsed, _context(call, reports), reports), ToolStatus.OK
        except ToolError as error:
            output, status = str(error), ToolStatus.ERROR
        milliseconds = round((time.monotonic() - started) * 1000)
        return ToolResult(output=output, status=status, duration_ms=milliseconds)


def _context(call: RunTool, reports: ToolReports) -> ToolContext:
    return ToolContext(
        user_id=call.turn.user_id,
        session_id=call.turn.session_id,
        turn_id=call.turn.turn_id,
        tool_call_id=call.tool_call_id,
        folder=None,
        scope=call.scope,
        result_of=_no_results,
        share=_no_files,
        report=reports.report,
    )


async def _no_results(tool_call_id: str) -> str | None:  # noqa: ARG001
    raise ToolError(NOT_ON_TOOL_WORKERS.format(what="the results of other calls"))


async def _no_files(path: str) -> SharedFile:  # noqa: ARG001
    raise ToolError(NOT_ON_TOOL_WORKERS.format(what="the files of the session"))
