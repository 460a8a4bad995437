"""What is looked at before a tool is started: consent, arguments, earlier calls, and room in the budget."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.attempt import checkpoint, handed_over, stop_requested, when_storage_is_back
from activities.costs import Costs, priced_call
from activities.tool_results import ToolResult
from activities.tool_run import ToolState
from longhaul.contracts import RunTool, ToolStatus
from longhaul.db import conversation, messages, parked
from longhaul.db.connection import Connection
from longhaul.db.conversation import SameCall
from longhaul.db.database import Database
from longhaul.db.messages import StoredMessage
from longhaul.db.models import ParkedStatus
from longhaul.llm import prompts
from longhaul.settings import Settings
from longhaul.tools import Registry, Tool, ToolError
from longhaul.tools.approval import ApprovalRules
from longhaul.tools.registry import defect_of_arguments

# A call that failed in so many rounds in a row is not run again: models repeat what cannot work.
SAME_FAILURES_MAX = 3

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How many seconds an attempt waits for the database; `state`: the checkpoint of the attempts before it."""

    seconds: float
    state: ToolState | None = None

    async def when_storage_is_back(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step as soon as the database is there.

        Raises:
            ApplicationError: `StorageUnavailable`, `HandedOver`.
        """
        # Not left to the next attempt, which would take this one for a run of the tool.
        try:
            return await when_storage_is_back(step, self.seconds)
        except asyncio.CancelledError:
            if activity.is_worker_shutdown() and not stop_requested():
                checkpoint(self.state or ToolState())
                raise handed_over() from None
            raise


class ReadyCall(NamedTuple):
    """A call that is to be started. `arguments`: as the model wrote them; `new_arguments`: a person's, instead."""

    tool: Tool
    parsed: BaseModel
    arguments: str
    new_arguments: str | None


class ToolChecks:
    """Looks at tool calls before they are started."""

    def __init__(self, database: Database, tools: Registry, settings: Settings) -> None:
        self._database = database
        self._tools = tools
        self._storage_window = settings.storage_window
        self._approvals = ApprovalRules(settings.approve)
        self._costs = Costs(database)

    async def rows_of(self, call: RunTool, patience: Patience) -> list[StoredMessage]:
        """The rows of a call's round."""
        return await self._read(
            partial(conversation.rows_of_round, turn_id=call.turn.turn_id, round_=call.round), patience
        )

    async def look(self, call: RunTool, rows: Sequence[StoredMessage], patience: Patience) -> ReadyCall | ToolResult:
        """The call if it is to be started, else its result: refused, only said in a dry run, or stored already.

        Raises:
            ApplicationError: the rows have no such call. `StorageUnavailable`, `HandedOver`.
        """
        own_row = messages.row_id(call.turn.turn_id, call.round, "tool", call.tool_call_id)
        if done := next((row for row in rows if row.id == own_row), None):
            return ToolResult(output=done.content, status=ToolStatus.ERROR if done.is_error else ToolStatus.OK)
        arguments = conversation.arguments_of_call(rows, call.tool_call_id)
        if arguments is None:
            raise ApplicationError(f"Row {call.message_id} has no call {call.tool_call_id}.", non_retryable=True)
        started = time.monotonic()
        new_arguments = None
        try:
            if any(conversation.cut_off_call(row.finish_reason, row.tool_calls) == call.tool_call_id for row in rows):
                raise ToolError(prompts.CALL_CUT_OFF.format(name=call.name))
            if defect := defect_of_arguments(arguments):
                raise ToolError(f"{call.name}: {defect}")
            tool = self._tools.get(call.name, call.scope)
            new_arguments = await self._allowed_with(call, tool, arguments, patience)
            parsed = tool.parse(arguments if new_arguments is None else new_arguments)
            await self._check(call, tool, arguments, patience)
            if not tool.only_said(call.scope):
                return ReadyCall(tool, parsed, arguments, new_arguments)
            output, status = tool.told(parsed), ToolStatus.OK
        except ToolError as error:
            output, status = str(error), ToolStatus.ERROR
        milliseconds = round((time.monotonic() - started) * 1000)
        return ToolResult(output=output, status=status, duration_ms=milliseconds, new_arguments=new_arguments)

    async def reserve(self, call: RunTool, tool: Tool, patience: Patience) -> None:
        """Reserve the tool's price, if a budget limits the session.

        Raises:
            ToolError: the budget has no room for it.
        """
        if not tool.price_microdollars:
            return
        lifetime_s = call.timeout + self._storage_window
        reserve = partial(self._costs.reserve_price, call, tool.price_microdollars, lifetime_s)
        if await patience.when_storage_is_back(reserve) is not None:
            raise ToolError(prompts.NO_BUDGET_FOR_TOOL.format(name=call.name, price=tool.price_microdollars))

    async def release(self, call: RunTool, tool: Tool, patience: Patience) -> None:
        """Give back what was reserved for a call that has not run."""
        if tool.price_microdollars:
            await patience.when_storage_is_back(partial(self._costs.release, priced_call(call)))

    async def _allowed_with(self, call: RunTool, tool: Tool, arguments: str, patience: Patience) -> str | None:
        """The arguments that a person has put in the place of the model's, if the call needs consent; None: none.

        Raises:
            ToolError: the call needs consent, and no person has given it.
        """
        needed = not tool.only_said(call.scope) and self._approvals.need(tool, arguments, call.turn.user_id)
        if not call.approved and not needed:
            return None
        asked = parked.id_of(call.turn.turn_id, call.round, call.tool_call_id)
        row = await self._read(partial(parked.get, parked_id=asked), patience)
        if row is None or row.status is not ParkedStatus.ALLOWED:
            raise ToolError(prompts.NOT_APPROVED.format(name=call.name))
        if row.definition != tool.definition:
            raise ToolError(prompts.TOOL_CHANGED.format(name=call.name))
        return row.new_arguments

    async def _check(self, call: RunTool, tool: Tool, arguments: str, patience: Patience) -> None:
        """Refuse a call that must not run; `arguments` as the model wrote them.

        Raises:
            ToolError: the text tells the model why.
        """
        if tool.run is None:
            raise ToolError(f"The tool {call.name!r} cannot be run here.")
        turn, most = call.turn, SAME_FAILURES_MAX
        if call.round > most:
            same = SameCall(turn.turn_id, call.round, call.name, arguments)
            failures = await self._read(partial(conversation.failures_before, call=same, rounds=most), patience)
            if failures >= most:
                raise ToolError(prompts.CALL_KEEPS_FAILING.format(name=call.name, times=failures))
        for name in tool.requires:
            succeeded = partial(conversation.has_succeeded, session_id=turn.session_id, tool_name=name)
            if not await self._read(succeeded, patience):
                raise ToolError(prompts.CALL_REQUIRES.format(name=call.name, required=name))

    async def _read(self, query: Callable[[Connection], Awaitable[T]], patience: Patience) -> T:
        async def read() -> T:
            async with self._database.read() as connection:
                return await query(connection)

        return await patience.when_storage_is_back(read)
