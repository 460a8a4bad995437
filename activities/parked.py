"""Tool calls that wait for a person or a client: asks, and takes the answer. The waiting is done by the workflow."""

from datetime import timedelta

from temporalio import activity

from activities.attempt import TurnStreams, storage_faults
from activities.tool_results import ToolResult, ToolResults
from longhaul.contracts import GiveUp, ParkCall, ParkedCall, SettleCall, ToolStatus, TurnRef
from longhaul.db import conversation, parked
from longhaul.db.database import Database
from longhaul.db.models import ParkedStatus, utc_now
from longhaul.db.parked import NewParked, ParkedRow
from longhaul.llm import prompts
from longhaul.settings import Settings
from longhaul.streams.events import approval_part, connect_request
from longhaul.tools import Registry

STATUS_WITHOUT_ANSWER = {GiveUp.TIME: ParkedStatus.EXPIRED, GiveUp.MESSAGE: ParkedStatus.SKIPPED}


class ParkedActivities:
    """Asks people and clients about tool calls, and takes their answers."""

    def __init__(self, database: Database, streams: TurnStreams, tools: Registry, settings: Settings) -> None:
        self._database = database
        self._streams = streams
        self._tools = tools
        self._providers = settings.providers
        self._results = ToolResults(database, streams, settings.storage_window)

    @activity.defn
    async def park_call(self, call: ParkCall) -> ParkedCall:
        """Store and show that a call waits. It does not wait if the person has allowed its tool for the session, or has
        given the credential meanwhile."""
        turn, now = call.turn, utc_now()
        tool = self._tools.find(call.name)
        provider = self._providers.get(call.credential)
        with storage_faults():
            async with self._database.write() as connection:
                rows = await conversation.rows_of_round(connection, turn.turn_id, call.round)
                new = NewParked(
                    parked.id_of(turn.turn_id, call.round, call.tool_call_id, call.connects),
                    session_id=turn.session_id,
                    user_id=turn.user_id,
                    turn_id=turn.turn_id,
                    round=call.round,
                    tool_call_id=call.tool_call_id,
                    tool_name=call.name,
                    kind=call.kind,
                    definition=tool.definition if tool is not None else "",
                    arguments=conversation.arguments_of_call(rows, call.tool_call_id) or "{}",
                    asked_at=now,
                    expires_at=now + timedelta(seconds=call.timeout) if call.timeout else None,
                    credential=call.credential or None,
                    provider=provider.title if provider is not None else None,
                )
                row = await parked.park(connection, new)
        # What the session allows is not asked, so clients hear nothing of it.
        published = await self._show(turn, row) if row.status is ParkedStatus.WAITING else True
        return ParkedCall(
            approval_id=row.id,
            waits=row.settled_at is None,
            asked_at=row.asked_at,
            expires_at=row.expires_at,
            published=published,
            connect=connect_request(row),
        )

    @activity.defn
    async def settle_call(self, settling: SettleCall) -> ParkedCall:
        """Take the answer to a call. The first one counts: an answer, or the reason to `give_up` without one."""
        turn = settling.turn
        give_up = STATUS_WITHOUT_ANSWER[settling.give_up] if settling.give_up is not None else None
        with storage_faults():
            async with self._database.write() as connection:
                row = await parked.settle(connection, settling.approval_id, give_up)
        if row.status is ParkedStatus.WAITING:
            return ParkedCall(approval_id=row.id, waits=True, asked_at=row.asked_at, expires_at=row.expires_at)
        published = await self._show(turn, row)
        outcome = None
        if row.status is not ParkedStatus.ALLOWED:
            outcome = await self._results.store(turn, row.round, row.tool_call_id, row.tool_name, _result_of(row))
        return ParkedCall(approval_id=row.id, outcome=outcome, published=published)

    async def _show(self, turn: TurnRef, row: ParkedRow) -> bool:
        async with self._streams.publisher(turn) as publisher:
            publisher.put(approval_part(row), once=f"approval:{row.id}:{row.status}")
        return not publisher.broken


def _result_of(row: ParkedRow) -> ToolResult:
    """What the model is told of a call that is not run."""
    waited = (row.answered_at or row.asked_at) - row.asked_at
    output, is_error = _said(row), row.status is not ParkedStatus.ANSWERED or row.is_error
    return ToolResult(
        output=output,
        status=ToolStatus.ERROR if is_error else ToolStatus.OK,
        duration_ms=round(waited.total_seconds() * 1000),
    )


def _said(row: ParkedRow) -> str:
    texts = prompts.OF_PARKED[row.kind]
    match row.status:
        case ParkedStatus.ANSWERED:
            return row.answer or ""
        case ParkedStatus.DENIED:
            reason = row.answer or prompts.DENIED_WITHOUT_REASON
            return texts.denied.format(reason=reason, credential=row.credential)
        case ParkedStatus.SKIPPED:
            return texts.skipped
        case ParkedStatus.EXPIRED if row.expires_at is not None:
            return texts.expired.format(time=row.expires_at - row.asked_at)
    return prompts.CANCELLED_CALL
