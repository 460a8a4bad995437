"""Runs tools and stores their results."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from activities.attempt import TurnStreams, checkpoint, last_checkpoint, when_storage_is_back
from activities.call_credentials import CallCredentials
from activities.costs import priced_call
from activities.sharing import FileSharing
from activities.tool_checks import Patience, ReadyCall, ToolChecks
from activities.tool_progress import StreamReports
from activities.tool_results import ToolResult, ToolResults
from activities.tool_run import ToolRun, ToolState
from longhaul.contracts import RunTool, StoreToolResult, ToolOutcome, ToolProgress, ToolStatus
from longhaul.credentials.credentials import Credentials
from longhaul.db import conversation
from longhaul.db.database import Database
from longhaul.files.store import FileStore
from longhaul.llm import prompts
from longhaul.settings import Settings
from longhaul.tools import NotConnectedError, Registry, ToolContext, ToolError

# The server terminates a turn whose running activities keep several megabytes of checkpoints.
ROUND_CHECKPOINTS_BYTES = 2_000_000
RESULT_CHECKPOINT_BYTES = 256_000


def tool_label(name: str) -> str:
    """A tool's run in the Web UI: an activity's summary, and the very name of a quick tool's local activity."""
    return f"tool · {name}"


class ToolActivities:
    """Runs tools."""

    def __init__(self, database: Database, streams: TurnStreams, tools: Registry, settings: Settings) -> None:
        self._database = database
        self._streams = streams
        self._tools = tools
        self._settings = settings
        self._storage_window = settings.storage_window
        self._checks = ToolChecks(database, tools, settings)
        self._results = ToolResults(database, streams, settings.storage_window)
        self._credentials = Credentials(database, settings)
        self._sharing = FileSharing(database, FileStore(settings), settings)

    @activity.defn
    async def run_tool(self, call: RunTool) -> ToolOutcome:
        """One tool call, its result stored before it returns. A tool's failure is a result, for the model to read.

        A call that lacks a credential has no result: the outcome says which, and the call is to run again later.

        Raises:
            ApplicationError: `ToolTryFailed` (Temporal retries), `StorageUnavailable`, `HandedOver`.
        """
        state = last_checkpoint(ToolState)
        result = state.result if state is not None else None
        if result is None:
            patience = Patience(self._results.patience, state)
            rows = await self._checks.rows_of(call, patience)
            call = call.model_copy(update={"name": conversation.name_of_call(rows, call.tool_call_id) or call.name})
            found = await self._checks.look(call, rows, patience)
            try:
                result = found if isinstance(found, ToolResult) else await self._run(call, found, patience)
            except NotConnectedError as missing:
                return ToolOutcome(tool_call_id=call.tool_call_id, status=ToolStatus.RUNNING, lacks=missing.credential)
            calls_of_round = sum(len(row.tool_calls or ()) for row in rows)
            share = ROUND_CHECKPOINTS_BYTES // max(calls_of_round, 1)
            checkpoint(ToolState(result=result), min(share, RESULT_CHECKPOINT_BYTES))
        known = self._tools.find(call.name)
        priced = priced_call(call) if known is not None and known.price_microdollars else None
        return await self._results.store(call.turn, call.round, call.tool_call_id, call.name, result, priced=priced)

    @activity.defn(dynamic=True)
    async def quick_tool(self, arguments: Sequence[RawValue]) -> ToolOutcome:
        """`run_tool` under any name: the Web UI's timeline shows only the name of a local activity.

        Raises:
            ApplicationError: `NotFoundError` for an ordinary activity: another worker may have it.
        """
        info = activity.info()
        if not info.is_local:
            raise ApplicationError(f"This worker has no activity {info.activity_type!r}.", type="NotFoundError")
        call: RunTool = activity.payload_converter().from_payload(arguments[0].payload, RunTool)
        return await self.run_tool(call)

    @activity.defn
    async def store_tool_result(self, performed: StoreToolResult) -> ToolOutcome:
        """Store the result of a tool that the workflow performed."""
        status = ToolStatus.ERROR if performed.is_error else ToolStatus.OK
        result = ToolResult(output=performed.output, status=status)
        return await self._results.store(
            performed.turn, performed.round, performed.tool_call_id, performed.name, result
        )

    async def _run(self, call: RunTool, ready: ReadyCall, patience: Patience) -> ToolResult:
        """Run a tool once.

        Raises:
            NotConnectedError: it lacks a credential.
            ApplicationError: `ToolTryFailed`: it is to be started again. `StorageUnavailable`, `HandedOver`.
        """
        started, cost = time.monotonic(), None
        given = CallCredentials(self._credentials, call)
        try:
            run = ToolRun(call, ready.tool, patience.state, given.redact)
            if run.is_lost:
                output, status = prompts.LOST_CALL, ToolStatus.LOST
            else:
                await self._checks.reserve(call, ready.tool, patience)
                async with self._streams.publisher(call.turn) as publisher:
                    reports = StreamReports(self._streams.redis, publisher, call)
                    context = self._context(call, given, reports.report)
                    output = await given.asking(run.start(ready.parsed, context, reports), patience)
                status, cost = ToolStatus.OK, ready.tool.price_microdollars or None
        except NotConnectedError:
            await self._checks.release(call, ready.tool, patience)
            raise
        except ToolError as error:
            output, status = str(error), ToolStatus.ERROR
        return ToolResult(
            output=output,
            status=status,
            duration_ms=round((time.monotonic() - started) * 1000),
            new_arguments=ready.new_arguments,
            cost_microdollars=cost,
        )

    def _context(self, call: RunTool, given: CallCredentials, report: Callable[[ToolProgress], None]) -> ToolContext:
        session_id = call.turn.session_id

        async def result_of(tool_call_id: str) -> str | None:
            async def read() -> str | None:
                async with self._database.read() as connection:
                    return await conversation.tool_result(connection, session_id, tool_call_id)

            return await when_storage_is_back(read, self._storage_window)

        return ToolContext(
            user_id=call.turn.user_id,
            session_id=session_id,
            turn_id=call.turn.turn_id,
            tool_call_id=call.tool_call_id,
            folder=self._settings.workspace_of(call.scope.root_session_id or session_id),
            workspace_max_bytes=self._settings.workspace_max_bytes,
            scope=call.scope,
            result_of=result_of,
            share=partial(self._sharing.share, call),
            credential=given.get,
            report=lambda progress: report(given.redacted(progress)),
        )
