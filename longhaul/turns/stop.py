"""Stop: cancel what a session runs and wait for its end."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowContinuedAsNewError, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from longhaul import temporal
from longhaul.contracts import TurnResult, TurnStatus
from longhaul.turns.status import RunningTurn, TurnLookup

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoppedTurn:
    """A turn that was told to stop, and its status afterwards: not final when it did not end in time."""

    turn_id: str
    status: TurnStatus


class TurnStopper:
    """Stops turns."""

    def __init__(self, client: Client, turns: TurnLookup, rpc_timeout: float) -> None:
        self._client = client
        self._turns = turns
        self._rpc_timeout = rpc_timeout

    async def stop(self, session_id: str, seconds: float) -> StoppedTurn | None:
        """Cancel what a session runs and wait up to `seconds` for its end. None: nothing ran.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        turn = await self._turns.running(session_id)
        return await self._stop(session_id, turn, seconds) if turn is not None else None

    async def _stop(self, session_id: str, turn: RunningTurn, seconds: float) -> StoppedTurn:
        try:
            async with temporal.reachable(self._rpc_timeout):
                await self._runs_of(session_id, turn).cancel(
                    reason="stopped by its user", rpc_timeout=timedelta(seconds=self._rpc_timeout)
                )
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
        try:
            # The inner limit is never reached first; it turns connection errors into `UnavailableError`.
            async with asyncio.timeout(seconds), temporal.reachable(seconds * 2):
                return StoppedTurn(turn.turn_id, await self._end(session_id, turn))
        except TimeoutError:
            return StoppedTurn(turn.turn_id, turn.status)

    async def stop_for_good(self, session_id: str, seconds: float) -> None:
        """Stop what a session runs; terminate it if it does not end in time. For sessions that are deleted.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        turn = await self._turns.running(session_id)
        if turn is None or (await self._stop(session_id, turn, seconds)).status.final:
            return
        try:
            async with temporal.reachable(self._rpc_timeout):
                await self._runs_of(session_id, turn).terminate(
                    reason="its session was deleted", rpc_timeout=timedelta(seconds=self._rpc_timeout)
                )
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            log.info("the turn of deleted session %s had ended by itself", session_id)

    async def request_stop(self, session_id: str) -> None:
        """Cancel what a session runs and do not wait; nothing running is no error.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        try:
            async with temporal.reachable(self._rpc_timeout):
                await self._client.get_workflow_handle(temporal.workflow_id(session_id)).cancel()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise

    def _runs_of(self, session_id: str, turn: RunningTurn) -> WorkflowHandle[Any, Any]:
        """The chain of runs of one turn: a turn that continues as new is not missed, the next turn is not hit."""
        return self._client.get_workflow_handle(
            temporal.workflow_id(session_id), first_execution_run_id=turn.first_run_id
        )

    async def _end(self, session_id: str, turn: RunningTurn) -> TurnStatus:
        run_id = turn.run_id
        while True:
            handle: WorkflowHandle[Any, TurnResult] = self._client.get_workflow_handle(
                temporal.workflow_id(session_id), run_id=run_id, result_type=TurnResult
            )
            try:
                return (await handle.result(follow_runs=False)).status
            except WorkflowContinuedAsNewError as continued:
                # Either the turn goes on in a new run, or it has ended and the next turn's run has begun.
                stored = await self._turns.stored(session_id, turn.turn_id)
                if stored is not None and stored.status.final:
                    return stored.status
                run_id = continued.new_execution_run_id
            except WorkflowFailureError:
                stored = await self._turns.stored(session_id, turn.turn_id)
                return stored.status if stored is not None else TurnStatus.CANCELLED
