"""Stop: cancel what a session runs and wait for its end."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis
from temporalio.client import Client, WorkflowContinuedAsNewError, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from longhaul import temporal
from longhaul.contracts import TurnResult, TurnStatus
from longhaul.db import turns
from longhaul.db.database import Database
from longhaul.errors import UnavailableError
from longhaul.turns import stop_notices
from longhaul.turns.status import RunningTurn, TurnLookup

log = logging.getLogger(__name__)
#: So long a caller waits for a turn that it has stopped.
STOP_MAX_S = 10.0


@dataclass(frozen=True)
class StoppedTurn:
    """A turn that was asked to stop, and its status afterwards: not final when it did not end in time."""

    turn_id: str
    status: TurnStatus


class TurnStopper:
    """Stops turns."""

    def __init__(
        self, database: Database, client: Client, redis: "Redis", turns: TurnLookup, rpc_timeout: float
    ) -> None:
        self._database = database
        self._client = client
        self._redis = redis
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
        await self._mark_stopped(session_id, turn.turn_id)
        try:
            # The inner limit is never reached first; it turns connection errors into `UnavailableError`.
            async with asyncio.timeout(seconds), temporal.reachable(seconds * 2):
                return StoppedTurn(turn.turn_id, await self._cancel_and_wait(session_id, turn))
        except TimeoutError:
            return StoppedTurn(turn.turn_id, turn.status)

    async def _cancel_and_wait(self, session_id: str, turn: RunningTurn) -> TurnStatus:
        """Cancel the run that was seen, and those that the turn continues as; never the next turn's run."""
        run_id: str | None = turn.run_id
        while run_id is not None:
            run: WorkflowHandle[Any, TurnResult] = self._client.get_workflow_handle(
                temporal.workflow_id(session_id), run_id=run_id, result_type=TurnResult
            )
            await self._cancel(run)
            notice = asyncio.create_task(stop_notices.publish(self._redis, session_id))
            try:
                return (await run.result(follow_runs=False)).status
            except WorkflowContinuedAsNewError as continued:
                run_id = await self._run_of(session_id, turn, continued.new_execution_run_id)
            except WorkflowFailureError:
                break
            finally:
                await notice
        stored = await self._turns.stored(session_id, turn.turn_id)
        return stored.status if stored is not None else TurnStatus.CANCELLED

    async def _run_of(self, session_id: str, turn: RunningTurn, run_id: str) -> str | None:
        """The id of a run, if the turn has continued as this run. None: the turn has ended, and the next one runs."""
        described = await self._client.get_workflow_handle(temporal.workflow_id(session_id), run_id=run_id).describe()
        return run_id if await described.memo_value(temporal.TURN_ID_MEMO, type_hint=str) == turn.turn_id else None

    async def _cancel(self, run: WorkflowHandle[Any, TurnResult]) -> None:
        try:
            async with temporal.reachable(self._rpc_timeout):
                await run.cancel(reason="stopped by its user", rpc_timeout=timedelta(seconds=self._rpc_timeout))
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise

    async def terminate(self, session_id: str) -> None:
        """End what a session runs at once, without rows. For sessions that are deleted.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        if (turn := await self._turns.running(session_id)) is None:
            return
        try:
            async with temporal.reachable(self._rpc_timeout):
                # The chain of runs: each run that the turn has continued as, and the turn that follows it.
                chain = self._client.get_workflow_handle(
                    temporal.workflow_id(session_id), first_execution_run_id=turn.first_run_id
                )
                await chain.terminate(
                    reason="its session was deleted", rpc_timeout=timedelta(seconds=self._rpc_timeout)
                )
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            log.info("the turn of deleted session %s had ended by itself", session_id)

    async def request_stop(self, session_id: str, *, only_turn: str = "") -> None:
        """Cancel what a session runs (or only a certain turn) and do not wait; nothing running is no error.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        turn = await self._turns.running(session_id)
        while turn is not None and only_turn in ("", turn.turn_id):
            await self._mark_stopped(session_id, turn.turn_id)
            run: WorkflowHandle[Any, TurnResult] = self._client.get_workflow_handle(
                temporal.workflow_id(session_id), run_id=turn.run_id, result_type=TurnResult
            )
            await self._cancel(run)
            await stop_notices.publish(self._redis, session_id)
            later = await self._turns.running(session_id)
            if later is None or later.run_id == turn.run_id:
                return
            # That run has ended. The turn may have continued as another one, which knows nothing of the Stop.
            turn, only_turn = later, only_turn or turn.turn_id

    async def _mark_stopped(self, session_id: str, turn_id: str) -> None:
        """Let messages that are accepted from now on belong to the next turn.

        While the database is away no message is accepted, so the turn is stopped without the mark.
        """
        try:
            async with self._database.write() as connection:
                await turns.mark_stopped(connection, session_id, turn_id)
        except UnavailableError as error:
            log.warning("turn %s is stopped while no row can be written: %s", turn_id, error)
