"""Tool calls of tool workers, before and after those have them: looked at, opened, and their results stored."""

from temporalio import activity

from activities.attempt import TurnStreams, storage_faults
from activities.costs import priced_call
from activities.tool_checks import Patience, ReadyCall, ToolChecks
from activities.tool_results import ToolResult, ToolResults
from longhaul.contracts import OpenedToolCall, RunTool, SettleToolCall, ToolOutcome, ToolStatus
from longhaul.db import remote_calls
from longhaul.db.database import Database
from longhaul.db.remote_calls import NewRemoteCall
from longhaul.llm import prompts
from longhaul.settings import Settings
from longhaul.tools import Registry, ToolError

#: These are stores: Temporal tries them again, so no attempt waits for the database.
AT_ONCE = Patience(0)


class QueuedToolActivities:
    """Opens the calls of tool workers, and takes their results."""

    def __init__(self, database: Database, streams: TurnStreams, tools: Registry, settings: Settings) -> None:
        self._database = database
        self._tools = tools
        self._checks = ToolChecks(database, tools, settings)
        self._results = ToolResults(database, streams, settings.storage_window)

    @activity.defn
    async def open_tool_call(self, call: RunTool) -> OpenedToolCall:
        """Look at a call, and let it wait for a tool worker. A call that is not to be run has its result at once."""
        found = await self._checks.look(call, await self._checks.rows_of(call, AT_ONCE), AT_ONCE)
        if isinstance(found, ReadyCall):
            try:
                await self._checks.reserve(call, found.tool, AT_ONCE)
                return await self._opened(call, found)
            except ToolError as error:
                found = ToolResult(output=str(error), status=ToolStatus.ERROR, new_arguments=found.new_arguments)
        return OpenedToolCall(outcome=await self._stored(call, found))

    @activity.defn
    async def settle_tool_call(self, settling: SettleToolCall) -> ToolOutcome:
        """Store the result that a tool worker has given; nothing is taken from tool workers after that."""
        call = settling.call
        with storage_faults():
            async with self._database.write() as connection:
                given = await remote_calls.end(connection, settling.remote_call_id)
        status = ToolStatus(given.status) if given.status is not None else ToolStatus.ERROR
        output = given.output if given.status is not None else settling.failure or prompts.NO_RESULT_GIVEN
        tool = self._tools.find(call.name)
        price = tool.price_microdollars if tool is not None else 0
        result = ToolResult(
            output=output or "",
            status=status,
            duration_ms=given.duration_ms,
            new_arguments=given.new_arguments,
            cost_microdollars=price if price and status is ToolStatus.OK else None,
        )
        outcome = await self._stored(call, result)
        with storage_faults():
            async with self._database.write() as connection:
                await remote_calls.forget_texts(connection, settling.remote_call_id)
        return outcome

    async def _opened(self, call: RunTool, ready: ReadyCall) -> OpenedToolCall:
        new = NewRemoteCall(
            remote_calls.id_of(call.turn.turn_id, call.round, call.tool_call_id),
            turn=call.turn,
            tool_call_id=call.tool_call_id,
            tool_name=call.name,
            arguments=ready.arguments,
            new_arguments=ready.new_arguments,
        )
        with storage_faults():
            async with self._database.write() as connection:
                await remote_calls.open_call(connection, new)
        return OpenedToolCall(remote_call_id=new.id)

    async def _stored(self, call: RunTool, result: ToolResult) -> ToolOutcome:
        tool = self._tools.find(call.name)
        priced = priced_call(call) if tool is not None and tool.price_microdollars else None
        return await self._results.store(call.turn, call.round, call.tool_call_id, call.name, result, priced=priced)
