"""What runs now, from Temporal; and what a turn's progress is, from wherever it can be had."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from temporalio.client import (
    WorkflowContinuedAsNewError,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import QueryRejectCondition
from temporalio.service import RPCError, RPCStatusCode

from api.services import Services
from longhaul import temporal
from longhaul.contracts import Empty, Progress, TurnResult, TurnStatus
from longhaul.db import turns
from longhaul.db.turns import TurnRecord
from longhaul.errors import UnavailableError

log = logging.getLogger(__name__)
QUERY_TIMEOUT_S = 2.0
QUERY_TRIES = 3


@dataclass(frozen=True)
class LiveTurn:
    """A turn that Temporal runs."""

    turn_id: str
    status: TurnStatus
    started_at: datetime
    run_id: str
    first_run_id: str


class Live:
    """Questions about running turns."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._timeout = services.settings.temporal_rpc_timeout

    async def running(self, session_id: str) -> LiveTurn | None:
        """The turn of a session that runs now.

        Raises:
            UnavailableError: Temporal does not say.
        """
        handle = self._services.temporal.get_workflow_handle(temporal.workflow_id(session_id))
        try:
            async with temporal.reachable(self._timeout):
                found = await handle.describe(rpc_timeout=timedelta(seconds=self._timeout))
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return None
            raise
        if found.status != WorkflowExecutionStatus.RUNNING:
            return None
        status = found.typed_search_attributes.get(temporal.STATUS_ATTRIBUTE, TurnStatus.RUNNING.value)
        return LiveTurn(
            turn_id=await found.memo_value(temporal.TURN_ID_MEMO, type_hint=str),
            # Between its last word and its end a run is still running, whatever it says of itself already.
            status=TurnStatus(status) if not TurnStatus(status).final else TurnStatus.RUNNING,
            started_at=found.start_time,
            run_id=found.run_id,
            first_run_id=found.raw_info.first_run_id or found.run_id,
        )

    async def runs(self, session_id: str, turn_id: str) -> bool:
        """Whether Temporal runs this very turn.

        Raises:
            UnavailableError: Temporal does not say.
        """
        found = await self.running(session_id)
        return found is not None and found.turn_id == turn_id

    async def query(self, session_id: str) -> Progress | None:
        """The progress of a session's running turn as its workflow tells it; None if none runs or no worker answers."""
        handle = self._services.temporal.get_workflow_handle(temporal.workflow_id(session_id))
        for _ in range(QUERY_TRIES):
            try:
                async with temporal.reachable(QUERY_TIMEOUT_S):
                    found: Progress = await handle.query(
                        temporal.PROGRESS_QUERY,
                        Empty(),
                        result_type=Progress,
                        reject_condition=QueryRejectCondition.NOT_OPEN,
                        rpc_timeout=timedelta(seconds=QUERY_TIMEOUT_S),
                    )
                return found
            except WorkflowQueryRejectedError:
                continue  # the run has ended while we asked; a long turn goes on in the next one
            except (WorkflowQueryFailedError, UnavailableError, RPCError) as error:
                log.debug("no progress of session %s from its workflow: %s", session_id, error)
                return None
        return None

    async def progress(self, session_id: str, turn_id: str) -> Progress | None:
        """A turn's progress: its workflow's word while it runs, its row's afterwards, what is known in between.

        Raises:
            UnavailableError: it has no row, or none that can be read, and Temporal does not say how it stands.
        """
        try:
            row = await self._row(session_id, turn_id)
        except UnavailableError:
            if (told := await self._told(session_id, turn_id)) is None:
                raise
            return told
        if row is not None and row.status.final:
            return from_row(row)
        if (told := await self._told(session_id, turn_id)) is not None:
            return told
        try:
            running = await self.running(session_id)
        except UnavailableError:
            if row is None:
                raise
            return from_row(row)
        if running is not None and running.turn_id == turn_id:
            return await self._as_stored(row) if row is not None else _accepted(session_id, running)
        row = await self._row(session_id, turn_id)  # it may have ended since
        if row is None or row.status.final:
            return from_row(row) if row is not None else None
        ended = {"status": TurnStatus.FAILED, "error": turns.WORKFLOW_LOST}
        return from_row(row).model_copy(update=ended)

    async def _told(self, session_id: str, turn_id: str) -> Progress | None:
        told = await self.query(session_id)
        return told if told is not None and told.turn_id == turn_id else None

    async def _as_stored(self, row: TurnRecord) -> Progress:
        """A running turn that does not answer: what its rows tell."""
        async with self._services.database.read() as connection:
            position = await turns.position(connection, row.session_id, row.turn_id)
        return from_row(row).model_copy(update={"round": position.round}) if position is not None else from_row(row)

    async def _row(self, session_id: str, turn_id: str) -> TurnRecord | None:
        async with self._services.database.read() as connection:
            return await turns.get(connection, session_id, turn_id)

    async def stop(self, session_id: str, seconds: float) -> tuple[LiveTurn, TurnStatus] | None:
        """Cancel what a session runs and wait for its end; the turn and how it stands then. None: nothing ran.

        Raises:
            UnavailableError: Temporal cannot be reached.
        """
        turn = await self.running(session_id)
        if turn is None:
            return None
        # By the chain of runs, so that neither a turn that continues as new is missed nor the next one is hit.
        handle = self._services.temporal.get_workflow_handle(
            temporal.workflow_id(session_id), first_execution_run_id=turn.first_run_id
        )
        try:
            async with temporal.reachable(self._timeout):
                await handle.cancel(reason="stopped by its user", rpc_timeout=timedelta(seconds=self._timeout))
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
        try:
            # The inner bound never comes first; it gives errors of the connection their name.
            async with asyncio.timeout(seconds), temporal.reachable(seconds * 2):
                return turn, await self._end(session_id, turn)
        except TimeoutError:
            return turn, turn.status

    async def _end(self, session_id: str, turn: LiveTurn) -> TurnStatus:
        run_id = turn.run_id
        while True:
            handle: WorkflowHandle[Any, TurnResult] = self._services.temporal.get_workflow_handle(
                temporal.workflow_id(session_id), run_id=run_id, result_type=TurnResult
            )
            try:
                return (await handle.result(follow_runs=False)).status
            except WorkflowContinuedAsNewError as onward:
                # Either the turn goes on in a new run, or it has ended and the next turn's run has begun.
                row = await self._row(session_id, turn.turn_id)
                if row is not None and row.status.final:
                    return row.status
                run_id = onward.new_execution_run_id
            except WorkflowFailureError:
                row = await self._row(session_id, turn.turn_id)
                return row.status if row is not None else TurnStatus.CANCELLED


def from_row(row: TurnRecord) -> Progress:
    """A turn's progress from its row alone."""
    if row.progress is not None:
        try:
            return Progress.model_validate(row.progress)
        except ValidationError as error:
            log.warning("stored progress of turn %s cannot be read, its columns tell less: %s", row.turn_id, error)
    return Progress(
        turn_id=row.turn_id,
        session_id=row.session_id,
        status=row.status,
        model=row.model,
        started_at=row.started_at,
        ended_at=row.ended_at,
        duration_ms=row.duration_ms,
        error=row.error,
    )


def _accepted(session_id: str, turn: LiveTurn) -> Progress:
    """A turn that no worker has come to yet."""
    return Progress(turn_id=turn.turn_id, session_id=session_id, status=turn.status, started_at=turn.started_at)
