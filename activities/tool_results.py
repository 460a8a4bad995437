"""The result of a tool call: its row, and its part of the stream."""

from pydantic import BaseModel
from temporalio import activity

from activities.attempt import TurnStreams, stored_despite_stop
from longhaul.contracts import PLAN_TOOL, SHARE_TOOL, ToolOutcome, ToolStatus, TurnRef, Usage
from longhaul.db import ledger, messages
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.ledger import PaidCall
from longhaul.db.messages import StoredMessage
from longhaul.errors import NotFoundError
from longhaul.streams.events import plan_part, shared_file_part, tool_output_part


class ToolResult(BaseModel):
    """How a tool call ended, and its output. `new_arguments`: a person has put them in the place of the model's.

    `cost_microdollars`: the price of a tool that has run; None: nothing is to be paid.
    """

    output: str
    status: ToolStatus
    duration_ms: int = 0
    new_arguments: str | None = None
    cost_microdollars: int | None = None


class ToolResults:
    """Stores the results of tool calls."""

    def __init__(self, database: Database, streams: TurnStreams, storage_window: float) -> None:
        self._database = database
        self._streams = streams
        self._storage_window = storage_window

    @property
    def patience(self) -> float:
        """Seconds to wait for the database in this attempt. A local activity must not: it holds a workflow task up."""
        return 0 if activity.info().is_local else self._storage_window

    async def store(
        self,
        turn: TurnRef,
        round_: int,
        call_id: str,
        name: str,
        result: ToolResult,
        *,
        priced: PaidCall | None = None,
    ) -> ToolOutcome:
        """Store and publish a result. If the call has one already, that one stays and is shown.

        `priced`: the ledger's name of a call that has a price. It is booked with the result, also if another result
        came first: the tool has run. What was reserved for a call that costs nothing is given back.
        """
        is_error = result.status is not ToolStatus.OK
        row = messages.tool_row(
            turn.turn_id, round_, call_id, name, result.output, is_error=is_error, duration_ms=result.duration_ms
        )
        if result.new_arguments is not None:
            row = row._replace(context={"new_arguments": result.new_arguments})

        async def store() -> StoredMessage | None:
            try:
                async with self._database.write() as connection:
                    appended = await messages.append(connection, turn.session_id, [row])
                    await _settle(connection, priced, result)
                    # A timed-out attempt, or a Stop, may have stored a result first; show that one.
                    return None if appended else await messages.get(connection, row.id)
            except NotFoundError:  # the session was deleted; what its tools have cost was spent all the same
                async with self._database.write() as connection:
                    await _settle(connection, priced, result)
                raise

        # A result may be too large for a checkpoint, so wait for the database here.
        stored = await stored_despite_stop(store, self.patience)
        output = result.output
        if stored is not None:
            output, is_error = stored.content, stored.is_error
        async with self._streams.publisher(turn) as publisher:
            if name == PLAN_TOOL and not is_error and (plan := plan_part(output)):
                publisher.put(plan, once=f"plan:{round_}:{call_id}")
            if name == SHARE_TOOL and not is_error and (file := shared_file_part(output)):
                publisher.put(file, once=f"file:{round_}:{call_id}")
            publisher.put(tool_output_part(call_id, output, is_error=is_error), once=f"output:{round_}:{call_id}")
        return ToolOutcome(
            tool_call_id=call_id,
            status=result.status,
            published=not publisher.broken,
            cost_microdollars=result.cost_microdollars,
        )


async def _settle(connection: Connection, priced: PaidCall | None, result: ToolResult) -> None:
    if priced is None:
        return
    if result.cost_microdollars is None:
        await ledger.release(connection, priced)
    else:
        await ledger.book(connection, priced, Usage(cost_microdollars=result.cost_microdollars))
