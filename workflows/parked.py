"""Tool calls that wait for a person or a client. The workflow waits, so no worker slot is held, for days if need be.

Their rows decide: `park_call` stores what is asked, the API stores what is answered, and `settle_call` takes it. The
signal only says that there is something to take.
"""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities.parked import ParkedActivities
    from longhaul import temporal
    from longhaul.contracts import (
        GiveUp,
        ParkCall,
        ParkedCall,
        ParkKind,
        SettleCall,
        ToolCall,
        ToolOutcome,
        WaitingCall,
    )
    from workflows import policies
    from workflows.state import RunningTurn


class ParkedCalls:
    """Lets the tool calls of a turn wait for their answers."""

    def __init__(self, turn: RunningTurn) -> None:
        self._turn = turn

    async def answered(self, call: ToolCall, kind: ParkKind, message_id: str) -> ToolOutcome | None:
        """Wait until a call of the row `message_id` is answered; its outcome, or None: it is allowed, and is to run."""
        return await self._waited(call, self._asking(call, kind, message_id))

    async def connected(self, call: ToolCall, credential: str, message_id: str, connects: int) -> ToolOutcome | None:
        """Wait until the person has given a credential, asked for it so often; None: the call is to run again."""
        asking = self._asking(call, ParkKind.CONNECT, message_id)
        return await self._waited(call, asking.model_copy(update={"credential": credential, "connects": connects}))

    async def _waited(self, call: ToolCall, asking: ParkCall) -> ToolOutcome | None:
        turn = self._turn
        parked = await self._park(asking)
        turn.raise_if_stopped()
        if not parked.waits:
            return parked.outcome
        turn.call_waits(
            WaitingCall(
                approval_id=parked.approval_id,
                tool_call_id=call.tool_call_id,
                name=call.name,
                round=turn.state.round,
                kind=asking.kind,
                asked_at=parked.asked_at or workflow.now(),
                expires_at=parked.expires_at,
                connect=parked.connect,
            )
        )
        self._show()
        try:
            while parked.waits:
                parked = await self._settle(call, parked.approval_id, await self._wait(parked, asking.kind))
                turn.raise_if_stopped()
        except (asyncio.CancelledError, FailureError):
            # No `finally`: that would also run when a worker drops a run from its cache, outside of any workflow.
            self._ended(call)
            raise
        self._ended(call)
        return parked.outcome

    def _ended(self, call: ToolCall) -> None:
        self._turn.waiting_calls.pop(call.tool_call_id, None)
        self._show()

    def _show(self) -> None:
        """Show in Temporal whether the turn waits; it is `running` again as soon as nothing waits any more."""
        turn = self._turn
        if not turn.status.final:
            workflow.upsert_search_attributes([temporal.STATUS_ATTRIBUTE.value_set(turn.shown_status)])
        workflow.set_current_details(turn.details())

    async def _wait(self, parked: ParkedCall, kind: ParkKind) -> GiveUp | None:
        """Wait for an answer; why not any longer, if none has come.

        A message takes the place of a person's answer. A client that runs a tool goes on with that meanwhile.
        """
        turn, approval_id = self._turn, parked.approval_id
        time_left = None
        if parked.expires_at is not None:
            time_left = max(parked.expires_at - workflow.now(), timedelta())
        try:
            await workflow.wait_condition(
                lambda: (
                    approval_id in turn.answered or (kind is not ParkKind.CLIENT_TOOL and bool(turn.waiting_messages))
                ),
                timeout=time_left,
                timeout_summary="wait for an answer",
            )
        except TimeoutError:
            return GiveUp.TIME
        if approval_id in turn.answered:
            turn.answered.remove(approval_id)
            return None
        return GiveUp.MESSAGE

    def _asking(self, call: ToolCall, kind: ParkKind, message_id: str) -> ParkCall:
        turn = self._turn
        return ParkCall(
            turn=turn.ref,
            round=turn.state.round,
            message_id=message_id,
            tool_call_id=call.tool_call_id,
            name=call.name,
            kind=kind,
            timeout=turn.request.limits.answer_timeout,
        )

    async def _park(self, asking: ParkCall) -> ParkedCall:
        turn = self._turn
        parked: ParkedCall = await workflow.execute_activity_method(
            ParkedActivities.park_call,
            asking,
            **policies.storing(turn.request.limits, f"ask · {asking.name}"),
        )
        turn.update_published(parked.published)
        return parked

    async def _settle(self, call: ToolCall, approval_id: str, give_up: GiveUp | None) -> ParkedCall:
        turn = self._turn
        parked: ParkedCall = await workflow.execute_activity_method(
            ParkedActivities.settle_call,
            SettleCall(
                turn=turn.ref,
                round=turn.state.round,
                tool_call_id=call.tool_call_id,
                name=call.name,
                approval_id=approval_id,
                give_up=give_up,
            ),
            **policies.storing(turn.request.limits, f"take the answer · {call.name}"),
        )
        turn.update_published(parked.published)
        if parked.outcome is not None:
            turn.update_published(parked.outcome.published)
        return parked
