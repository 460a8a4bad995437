"""Runs tools and stores their results."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

from pydantic import BaseModel
from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from activities.attempt import (
    TurnStreams,
    checkpoint,
    handed_over,
    last_checkpoint,
    stop_requested,
    when_storage_is_back,
)
from activities.costs import Costs, priced_call
from activities.sharing import FileSharing
from activities.tool_progress import ToolReports
from activities.tool_results import ToolResult, ToolResults
from longhaul.contracts import RunTool, StoreToolResult, ToolOutcome, ToolProgress, ToolStatus
from longhaul.db import conversation, messages, parked
from longhaul.db.connection import Connection
from longhaul.db.conversation import SameCall
from longhaul.db.database import Database
from longhaul.db.messages import StoredMessage
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import ParkedRow
from longhaul.errors import TOOL_RETRY, new_reference
from longhaul.files.store import FileStore
from longhaul.llm import prompts
from longhaul.settings import Settings
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.tool_progress import tool_progress_part
from longhaul.tools import Registry, Tool, ToolContext, ToolError
from longhaul.tools.approval import ApprovalRules

log = logging.getLogger(__name__)
# The server terminates a turn whose running activities keep several megabytes of checkpoints.
ROUND_CHECKPOINTS_BYTES = 2_000_000
RESULT_CHECKPOINT_BYTES = 256_000
# A call that failed in so many rounds in a row is not run again: models repeat what cannot work.
SAME_FAILURES_MAX = 3
RETRY_PAUSE_S, RETRY_PAUSE_FACTOR, RETRY_PAUSE_MAX_S = 1.0, 2.0, 20.0

T = TypeVar("T")


class ToolState(BaseModel):
    """Checkpoint of a tool run: how often it was started, and its result until that is stored.

    `failures`: how many of the starts ended by an exception of the tool.
    """

    starts: int = 0
    failures: int = 0
    result: ToolResult | None = None


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
        self._costs = Costs(database)
        self._results = ToolResults(database, streams, settings.storage_window)
        self._approvals = ApprovalRules(settings.approve)
        self._sharing = FileSharing(database, FileStore(settings), settings)

    @activity.defn
    async def run_tool(self, call: RunTool) -> ToolOutcome:
        """One tool call, its result stored before it returns. A tool's failure is a result, for the model to read.

        Raises:
            ApplicationError: `ToolTryFailed` (Temporal retries), `StorageUnavailable`, `HandedOver`.
        """
        state = last_checkpoint(ToolState)
        result = state.result if state is not None else None
        if result is None:
            of_round = partial(conversation.rows_of_round, turn_id=call.turn.turn_id, round_=call.round)
            rows = await self._read(of_round, state)
            call = call.model_copy(update={"name": conversation.name_of_call(rows, call.tool_call_id) or call.name})
            result = await self._result(call, state, rows)
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

    async def _read(self, query: Callable[[Connection], Awaitable[T]], state: ToolState | None) -> T:
        """What a query answers, as soon as the database is there; `state` is that of the earlier attempts."""

        async def read() -> T:
            async with self._database.read() as connection:
                return await query(connection)

        return await self._when_storage_is_back(read, state)

    async def _when_storage_is_back(self, step: Callable[[], Awaitable[T]], state: ToolState | None) -> T:
        # Not left to the next attempt, which would take this one for a run of the tool.
        try:
            return await when_storage_is_back(step, self._results.patience)
        except asyncio.CancelledError:
            if activity.is_worker_shutdown() and not stop_requested():
                checkpoint(state or ToolState())
                raise handed_over() from None
            raise

    async def _result(self, call: RunTool, state: ToolState | None, rows: Sequence[StoredMessage]) -> ToolResult:
        own_row = messages.row_id(call.turn.turn_id, call.round, "tool", call.tool_call_id)
        if done := next((row for row in rows if row.id == own_row), None):
            return ToolResult(output=done.content, status=ToolStatus.ERROR if done.is_error else ToolStatus.OK)
        arguments = conversation.arguments_of_call(rows, call.tool_call_id)
        if arguments is None:
            raise ApplicationError(f"Row {call.message_id} has no call {call.tool_call_id}.", non_retryable=True)
        started = time.monotonic()
        new_arguments = cost = None
        try:
            tool = self._tools.get(call.name, call.scope)
            if any(conversation.cut_off_call(row.finish_reason, row.tool_calls) == call.tool_call_id for row in rows):
                raise ToolError(prompts.CALL_CUT_OFF.format(name=call.name))
            new_arguments = await self._allowed_with(call, tool, arguments)
            parsed = tool.parse(arguments if new_arguments is None else new_arguments)
            await self._check(call, tool, arguments, state)
            if tool.only_said(call.scope):
                output, status = tool.told(parsed), ToolStatus.OK
            else:
                output, status = await self._run(call, tool, parsed, state)
                cost = tool.price_microdollars if tool.price_microdollars and status is ToolStatus.OK else None
        except ToolError as error:
            output, status = str(error), ToolStatus.ERROR
        return ToolResult(
            output=output,
            status=status,
            duration_ms=round((time.monotonic() - started) * 1000),
            new_arguments=new_arguments,
            cost_microdollars=cost,
        )

    async def _allowed_with(self, call: RunTool, tool: Tool, arguments: str) -> str | None:
        """The arguments that a person has put in the place of the model's, if the call needs consent; None: none.

        Raises:
            ToolError: the call needs consent, and no person has given it.
        """
        if not call.approved and (tool.only_said(call.scope) or not self._approvals.need(tool, arguments)):
            return None

        async def read() -> ParkedRow | None:
            async with self._database.read() as connection:
                return await parked.get(connection, parked.id_of(call.turn.turn_id, call.round, call.tool_call_id))

        row = await when_storage_is_back(read, self._results.patience)
        if row is None or row.status is not ParkedStatus.ALLOWED:
            raise ToolError(prompts.NOT_APPROVED.format(name=call.name))
        return row.new_arguments

    async def _check(self, call: RunTool, tool: Tool, arguments: str, state: ToolState | None) -> None:
        """Refuse a call that must not run; `arguments` as the model wrote them.

        Raises:
            ToolError: the text tells the model why.
        """
        if tool.run is None:
            raise ToolError(f"The tool {call.name!r} cannot be run here.")
        turn, most = call.turn, SAME_FAILURES_MAX
        if call.round > most:
            same = SameCall(turn.turn_id, call.round, call.name, arguments)
            failures = await self._read(partial(conversation.failures_before, call=same, rounds=most), state)
            if failures >= most:
                raise ToolError(prompts.CALL_KEEPS_FAILING.format(name=call.name, times=failures))
        for name in tool.requires:
            succeeded = partial(conversation.has_succeeded, session_id=turn.session_id, tool_name=name)
            if not await self._read(succeeded, state):
                raise ToolError(prompts.CALL_REQUIRES.format(name=call.name, required=name))

    async def _run(
        self, call: RunTool, tool: Tool, parsed: BaseModel, state: ToolState | None
    ) -> tuple[str, ToolStatus]:
        """Run a tool once.

        Raises:
            ToolError: its failure, for the model.
            ApplicationError: `ToolTryFailed`: it is to be started again. `HandedOver`.
        """
        # Without a checkpoint, assume that the earlier attempts ran a tool that must not run twice.
        assumed_starts = 0 if tool.repeatable else activity.info().attempt - 1
        starts = state.starts if state is not None else assumed_starts
        failures = state.failures if state is not None else 0
        if starts and (not tool.repeatable or starts - failures >= call.max_tries):
            return prompts.LOST_CALL, ToolStatus.LOST
        await self._reserve(call, tool, state)
        checkpoint(ToolState(starts=starts + 1, failures=failures))
        async with self._streams.publisher(call.turn) as publisher:
            state = ToolState(starts=starts, failures=failures)
            return await self._started(call, tool, parsed, state, publisher), ToolStatus.OK

    async def _reserve(self, call: RunTool, tool: Tool, state: ToolState | None) -> None:
        """Reserve the tool's price, if a budget limits the session.

        Raises:
            ToolError: the budget has no room for it.
        """
        if not tool.price_microdollars:
            return
        lifetime_s = call.timeout + self._storage_window
        reserve = partial(self._costs.reserve_price, call, tool.price_microdollars, lifetime_s)
        if await self._when_storage_is_back(reserve, state) is not None:
            raise ToolError(prompts.NO_BUDGET_FOR_TOOL.format(name=call.name, price=tool.price_microdollars))

    async def _started(
        self, call: RunTool, tool: Tool, parsed: BaseModel, state: ToolState, publisher: StreamPublisher
    ) -> str:
        """The output of a tool that is started now; `state` is that before this start. Raises as `_run`."""
        reports = ToolReports(self._streams.redis, publisher, call)
        context = self._context(call, reports.report)
        assert tool.run is not None  # noqa: S101  # `_check` has refused it
        try:
            async with reports.showing(), asyncio.timeout(call.timeout or None) as limit:
                return await tool.run(parsed, context)
        except asyncio.CancelledError:
            if activity.is_worker_shutdown() and tool.repeatable and not stop_requested():
                checkpoint(state)
                raise handed_over() from None
            raise
        except ToolError:
            raise
        except Exception as error:
            if limit.expired():
                raise ToolError(prompts.TOOL_TIMED_OUT.format(name=call.name, seconds=call.timeout)) from error
            # The model deals with every exception of a tool; a turn must not fail by one.
            # Its text may hold secrets, so it goes to the log only; a tool tells the model something by a ToolError.
            reference = new_reference()
            log.exception("tool %s failed, reference %s", call.name, reference)
            if state.failures < call.retries:
                failures = state.failures + 1
                checkpoint(ToolState(starts=state.starts + 1, failures=failures))
                raise self._retry(call, failures, publisher, reference) from None
            raise ToolError(f"{call.name} failed by an unexpected error. Reference: {reference}.") from error
        finally:
            context.ended.set()

    def _retry(self, call: RunTool, failures: int, publisher: StreamPublisher, reference: str) -> ApplicationError:
        """The failure by which Temporal starts a tool again after a wait, without a slot of the worker meanwhile."""
        delay = min(RETRY_PAUSE_S * RETRY_PAUSE_FACTOR ** (failures - 1), RETRY_PAUSE_MAX_S)
        delay *= random.uniform(0.75, 1.25)  # noqa: S311  # not a secret
        retrying = ToolProgress(text=f"failed, reference {reference}; tried again in {delay:.1f} s")
        publisher.put(tool_progress_part(call.tool_call_id, call.name, retrying))
        text = f"The tool failed and is started again. Reference: {reference}."
        return ApplicationError(text, type=TOOL_RETRY, next_retry_delay=timedelta(seconds=delay))

    def _context(self, call: RunTool, report: Callable[[ToolProgress], None]) -> ToolContext:
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
            workspace=self._settings.workspace_of(call.scope.root_session_id or session_id),
            workspace_max_bytes=self._settings.workspace_max_bytes,
            scope=call.scope,
            result_of=result_of,
            share=partial(self._sharing.share, call),
            report=report,
        )
