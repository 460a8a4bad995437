"""The tool calls of a round, in parallel: activities, timers and child workflows."""

import asyncio
from datetime import timedelta

from temporalio import exceptions, workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.queued_tools import QueuedToolActivities
    from activities.remote_tools import RemoteToolActivities
    from activities.tools import ToolActivities, tool_label
    from longhaul.contracts import (
        PLAN_TOOL,
        ModelAnswer,
        OpenedToolCall,
        ParkKind,
        RunRemoteTool,
        RunTool,
        SettleToolCall,
        StoreToolResult,
        ToolCall,
        ToolOutcome,
        ToolStatus,
        Usage,
    )
    from longhaul.llm import prompts
    from longhaul.tools.registry import allowed, describe
    from longhaul.tools.workflow_tools import GetSubSessionResult, RunSubSession, WaitFor
    from workflows import policies
    from workflows.parked import ParkedCalls
    from workflows.state import RunningTurn
    from workflows.sub_sessions import SubSessionTools, ToolRefusalError

NEVER_STARTED = exceptions.TimeoutType.SCHEDULE_TO_START


class ToolCalls:
    """Runs the tool calls of a turn."""

    def __init__(self, turn: RunningTurn) -> None:
        self._turn = turn
        self._sub_sessions = SubSessionTools(turn)
        self._parked = ParkedCalls(turn)

    async def run(self, answer: ModelAnswer) -> None:
        """All calls of one answer; each ends with a stored row, except when the turn is stopped."""
        calls = (self._run_one(answer, call) for call in answer.tool_calls)
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def stop(self) -> None:
        """The turn was stopped: stop its sub-sessions too, except the detached ones."""
        await self._sub_sessions.stop()

    async def settle(self) -> None:
        """The turn is about to end: wait until no sub-session is half started."""
        await self._sub_sessions.settle()

    async def _run_one(self, answer: ModelAnswer, call: ToolCall) -> None:
        turn = self._turn
        turn.tool_started(call.tool_call_id, call.name)
        workflow.set_current_details(turn.details())
        try:
            outcome = None
            if call.parks is not None:
                outcome = await self._parked.answered(call, call.parks, answer.message_id)
            if outcome is None:
                outcome = await self._perform(answer, call)
            connects = 0
            while outcome.lacks:
                connects += 1
                asked = await self._parked.connected(call, outcome.lacks, answer.message_id, connects)
                outcome = asked or await self._as_activity(answer, call, connects)
        except (asyncio.CancelledError, FailureError):
            # No `finally`: that would also run when a worker drops a run from its cache, outside of any workflow.
            self._record_end(call, ToolStatus.CANCELLED)
            raise
        turn.update_published(outcome.published)
        turn.update(usage=turn.state.usage + Usage(cost_microdollars=outcome.cost_microdollars))
        if call.name == PLAN_TOOL and outcome.status is ToolStatus.OK:
            turn.update(plan_call_id=call.tool_call_id)
        self._record_end(call, outcome.status)

    async def _perform(self, answer: ModelAnswer, call: ToolCall) -> ToolOutcome:
        if (call.arguments is not None or call.delegation) and allowed(call.name, self._turn.request.scope):
            return await self._in_workflow(call)
        return await self._as_activity(answer, call)

    def _record_end(self, call: ToolCall, status: ToolStatus) -> None:
        self._turn.tool_ended(call.tool_call_id, status)
        workflow.set_current_details(self._turn.details())

    async def _as_activity(self, answer: ModelAnswer, call: ToolCall, connects: int = 0) -> ToolOutcome:
        turn = self._turn
        limits = turn.request.limits
        timeout = limits.tool_timeout if call.timeout is None else call.timeout
        run_tool = RunTool(
            turn=turn.ref,
            round=turn.state.round,
            message_id=answer.message_id,
            tool_call_id=call.tool_call_id,
            name=call.name,
            scope=turn.scope,
            max_tries=limits.tool_tries,
            timeout=timeout,
            retries=call.retries,
            approved=call.parks is ParkKind.APPROVAL,
            connects=connects,
        )
        label = tool_label(call.name)
        if call.task_queue:
            return await self._on_tool_worker(call, run_tool, label)
        try:
            if call.quick:
                outcome: ToolOutcome = await workflow.execute_local_activity(
                    label, run_tool, result_type=ToolOutcome, **policies.running_quick_tool(limits, label)
                )
                return outcome
            return await workflow.execute_activity_method(
                ToolActivities.run_tool, run_tool, **policies.running_tool(limits, label, timeout, call.retries)
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return await self._store(call, f"{call.name} failed: {cause_of(error)}", is_error=True)

    async def _on_tool_worker(self, call: ToolCall, run_tool: RunTool, label: str) -> ToolOutcome:
        """Open the call, let a tool worker run it, and settle it, also if no worker took it or gave a result."""
        limits = self._turn.request.limits
        opened: OpenedToolCall = await workflow.execute_activity_method(
            QueuedToolActivities.open_tool_call, run_tool, **policies.storing(limits, f"open · {call.name}")
        )
        if opened.outcome is not None:
            return opened.outcome
        self._turn.raise_if_stopped()
        failure, row = "", opened.remote_call_id
        try:
            await workflow.execute_activity_method(
                RemoteToolActivities.run_remote_tool,
                RunRemoteTool(call=run_tool, remote_call_id=row),
                **policies.running_remote_tool(limits, label, run_tool.timeout, call.retries, call.task_queue, row),
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            failure = f"{call.name} failed: {cause_of(error)}"
            if isinstance(error.cause, exceptions.TimeoutError) and error.cause.type is NEVER_STARTED:
                waited_s = limits.storage_window
                failure = prompts.NO_TOOL_WORKER.format(name=call.name, queue=call.task_queue, seconds=waited_s)
        return await workflow.execute_activity_method(
            QueuedToolActivities.settle_tool_call,
            SettleToolCall(call=run_tool, remote_call_id=row, failure=failure),
            **policies.storing(limits, f"result · {call.name}"),
        )

    async def _in_workflow(self, call: ToolCall) -> ToolOutcome:
        arguments = call.arguments or "{}"
        try:
            match call.name:
                case "wait":
                    return await self._wait(call, WaitFor.model_validate_json(arguments))
                case "run_sub_session":
                    delegation = call.delegation or RunSubSession.model_validate_json(arguments).delegation()
                    return await self._sub_sessions.run(call, delegation)
                case _:
                    return await self._sub_sessions.get_result(call, GetSubSessionResult.model_validate_json(arguments))
        except ValidationError as error:
            return await self._store(call, f"{call.name}: {describe(error)}", is_error=True)
        except ToolRefusalError as error:
            return await self._store(call, str(error), is_error=True)

    async def _wait(self, call: ToolCall, arguments: WaitFor) -> ToolOutcome:
        longest = self._turn.request.limits.wait_max_seconds
        if arguments.seconds > longest:
            return await self._store(call, f"wait: at most {longest:g} seconds at a time.", is_error=True)
        await workflow.sleep(timedelta(seconds=arguments.seconds), summary=f"tool · wait {arguments.seconds:g} s")
        return await self._store(call, f"Waited {arguments.seconds:g} seconds.")

    async def _store(self, call: ToolCall, output: str, *, is_error: bool = False) -> ToolOutcome:
        turn = self._turn
        return await workflow.execute_activity_method(
            ToolActivities.store_tool_result,
            StoreToolResult(
                turn=turn.ref,
                round=turn.state.round,
                tool_call_id=call.tool_call_id,
                name=call.name,
                output=output,
                is_error=is_error,
            ),
            **policies.storing(turn.request.limits, f"result · {call.name}"),
        )


def type_of(error: BaseException) -> str:
    """The type of the application's failure below the wrappers that Temporal puts around it; empty: there is none."""
    while error.__cause__ is not None and not isinstance(error, ApplicationError):
        error = error.__cause__
    return (error.type or "") if isinstance(error, ApplicationError) else ""


def cause_of(error: BaseException) -> str:
    """The text of a failure without the wrappers that Temporal puts around it, and without its own cause."""
    activity = ""
    while error.__cause__ is not None and not isinstance(error, ApplicationError):
        if isinstance(error, ActivityError):
            activity = error.activity_type
        error = error.__cause__
    if isinstance(error, exceptions.TimeoutError):
        return f"{activity} did not succeed within its time limit."
    return str(getattr(error, "message", "") or error) or type(error).__name__
