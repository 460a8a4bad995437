"""The tool calls of a round, in parallel: activities, timers and child workflows."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.tools import ToolActivities, tool_label
    from longhaul.contracts import ModelAnswer, RunTool, StoreToolResult, ToolCall, ToolOutcome, ToolStatus
    from longhaul.tools.registry import allowed, describe
    from longhaul.tools.workflow_tools import WORKFLOW_TOOLS, GetSubSessionResult, RunSubSession, WaitFor
    from workflows import policies
    from workflows.children import Children, ToolRefusalError
    from workflows.failures import cause
    from workflows.state import TurnBoard


class ToolRunner:
    """Runs the tool calls of a turn."""

    def __init__(self, board: TurnBoard) -> None:
        self._board = board
        self._children = Children(board)

    async def run(self, answer: ModelAnswer) -> None:
        """All calls of one answer; each ends with a stored row, except when the turn is stopped."""
        calls = (self._one(answer, call) for call in answer.tool_calls)
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended

    async def stop(self) -> None:
        """The turn was stopped: nothing of its tools goes on that should not."""
        await self._children.stop()

    async def settle(self) -> None:
        """The turn is at its end: nothing of its tools is left half begun."""
        await self._children.settle()

    async def _one(self, answer: ModelAnswer, call: ToolCall) -> None:
        board = self._board
        board.tool_started(call.tool_call_id, call.name)
        workflow.set_current_details(board.details())
        try:
            if call.name in WORKFLOW_TOOLS and allowed(call.name, board.request.scope):
                outcome = await self._in_workflow(call)
            else:
                outcome = await self._activity(answer, call)
        except (asyncio.CancelledError, FailureError):
            # No `finally`: that would also run when a worker drops a run from its cache, outside of any workflow.
            self._ended(call, ToolStatus.CANCELLED)
            raise
        board.note_published(outcome.published)
        self._ended(call, outcome.status)

    def _ended(self, call: ToolCall, status: ToolStatus) -> None:
        self._board.tool_ended(call.tool_call_id, status)
        workflow.set_current_details(self._board.details())

    async def _activity(self, answer: ModelAnswer, call: ToolCall) -> ToolOutcome:
        board = self._board
        limits = board.request.limits
        given = RunTool(
            turn=board.ref,
            round=board.state.round,
            message_id=answer.message_id,
            tool_call_id=call.tool_call_id,
            name=call.name,
            scope=board.scope,
            max_tries=limits.tool_tries,
        )
        label = tool_label(call.name)
        try:
            if call.quick:
                outcome: ToolOutcome = await workflow.execute_local_activity(
                    label,
                    given,
                    result_type=ToolOutcome,
                    summary=label,
                    **policies.running_quick_tool(limits),
                )
                return outcome
            return await workflow.execute_activity_method(
                ToolActivities.run_tool, given, summary=label, **policies.running_tool(limits)
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return await self._store(call, f"{call.name} failed: {cause(error)}", is_error=True)

    async def _in_workflow(self, call: ToolCall) -> ToolOutcome:
        arguments = call.arguments or "{}"
        try:
            match call.name:
                case "wait":
                    return await self._wait(call, WaitFor.model_validate_json(arguments))
                case "run_sub_session":
                    return await self._children.run_sub_session(call, RunSubSession.model_validate_json(arguments))
                case _:
                    return await self._children.get_result(call, GetSubSessionResult.model_validate_json(arguments))
        except ValidationError as error:
            return await self._store(call, f"{call.name}: {describe(error)}", is_error=True)
        except ToolRefusalError as error:
            return await self._store(call, str(error), is_error=True)

    async def _wait(self, call: ToolCall, given: WaitFor) -> ToolOutcome:
        longest = self._board.request.limits.wait_max_seconds
        if given.seconds > longest:
            return await self._store(call, f"wait: at most {longest:g} seconds at a time.", is_error=True)
        await workflow.sleep(timedelta(seconds=given.seconds), summary=f"tool · wait {given.seconds:g} s")
        return await self._store(call, f"Waited {given.seconds:g} seconds.")

    async def _store(self, call: ToolCall, output: str, *, is_error: bool = False) -> ToolOutcome:
        board = self._board
        return await workflow.execute_activity_method(
            ToolActivities.store_tool_result,
            StoreToolResult(
                turn=board.ref,
                round=board.state.round,
                tool_call_id=call.tool_call_id,
                name=call.name,
                output=output,
                is_error=is_error,
            ),
            summary=f"result · {call.name}",
            **policies.storing(board.request.limits),
        )
