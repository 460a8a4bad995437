"""How a turn stands. This module is the one answer: Temporal's while the turn runs, its rows' afterwards.

Each method says what it answers when Temporal or the database is away. `UnavailableError` means "unknown".
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import QueryRejectCondition
from temporalio.service import RPCError, RPCStatusCode

from longhaul import temporal
from longhaul.contracts import SUB_STATES, Empty, Progress, SubSessionRecord, SubSessionState, TurnStatus
from longhaul.db import acceptance, conversation, messages, sessions, turns
from longhaul.db.database import Database
from longhaul.db.messages import row_id
from longhaul.db.turns import TurnPosition, TurnRecord
from longhaul.errors import UnavailableError
from longhaul.tools.plan import plan_of

log = logging.getLogger(__name__)
QUERY_TIMEOUT_S = 2.0
QUERY_TRIES = 3
# A turn may begin or end between a look at Temporal and a look at its rows. Then both are looked at again.
MAX_LOOKS = 3


@dataclass(frozen=True)
class ActiveTurn:
    """The turn of a session that runs now."""

    turn_id: str
    status: TurnStatus
    started_at: datetime


@dataclass(frozen=True)
class RunningTurn(ActiveTurn):
    """The same from Temporal, with the ids of its workflow run."""

    run_id: str
    first_run_id: str


@dataclass(frozen=True)
class TurnStanding:
    """How one turn stands. `turn_id` is empty while no turn has taken the message that was asked about."""

    turn_id: str
    status: TurnStatus


class TurnLookup:
    """Answers how turns stand."""

    def __init__(self, database: Database, client: Client, rpc_timeout: float) -> None:
        self._database = database
        self._client = client
        self._rpc_timeout = rpc_timeout

    async def running(self, session_id: str) -> RunningTurn | None:
        """The turn of a session that Temporal runs now.

        Raises:
            UnavailableError: Temporal does not answer.
        """
        handle = self._client.get_workflow_handle(temporal.workflow_id(session_id))
        try:
            async with temporal.reachable(self._rpc_timeout):
                described = await handle.describe(rpc_timeout=timedelta(seconds=self._rpc_timeout))
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return None
            raise
        if described.status != WorkflowExecutionStatus.RUNNING:
            return None
        status = TurnStatus(described.typed_search_attributes.get(temporal.STATUS_ATTRIBUTE, TurnStatus.RUNNING.value))
        return RunningTurn(
            turn_id=await described.memo_value(temporal.TURN_ID_MEMO, type_hint=str),
            # A turn sets its final status shortly before its run ends. Until the end it runs.
            status=status if not status.final else TurnStatus.RUNNING,
            started_at=described.start_time,
            run_id=described.run_id,
            first_run_id=described.raw_info.first_run_id or described.run_id,
        )

    async def is_running(self, session_id: str, turn_id: str) -> bool:
        """Whether Temporal runs this very turn, or will when the turn has closed that runs: messages wait for it.

        Raises:
            UnavailableError: Temporal does not answer, or the database while Temporal runs another turn.
        """
        running = await self.running(session_id)
        if running is None or running.turn_id == turn_id:
            return running is not None
        return await self._accepted_since(session_id, turn_id) is not None

    async def active(self, session_id: str) -> ActiveTurn | None:
        """The turn that runs now: from Temporal, and while that is away from rows.

        Raises:
            UnavailableError: Temporal does not answer, and the rows know no turn of this session.
        """
        try:
            return await self.running(session_id)
        except UnavailableError:
            async with self._database.read() as connection:
                newest = await turns.newest(connection, session_id)
            if newest is None:
                raise
            return None if newest.status.final else ActiveTurn(newest.turn_id, newest.status, newest.started_at)

    async def exists(self, session_id: str, turn_id: str) -> bool:
        """Whether a session has this turn. One that no worker has opened yet has no row; messages wait for it.

        Raises:
            UnavailableError: the answer needs a part that is away.
        """
        try:
            if await self._row(session_id, turn_id) is not None:
                return True
        except UnavailableError:
            if await self.is_running(session_id, turn_id):
                return True
            raise
        return await self.is_running(session_id, turn_id)

    async def stored(self, session_id: str, turn_id: str) -> TurnPosition | None:
        """How far a turn has got according to its rows alone, which may be behind Temporal; None while it has none.

        Raises:
            UnavailableError: the database is away.
        """
        async with self._database.read() as connection:
            return await turns.position(connection, session_id, turn_id)

    async def newest(self, session_id: str) -> TurnStanding | None:
        """How a session's newest turn stands; None: it has had no turn.

        Raises:
            UnavailableError: Temporal or the database is away.
        """
        return await self._settled(session_id, message_id=None)

    async def taking(self, session_id: str, message_id: str) -> TurnStanding | None:
        """How the turn stands that takes this message; None: there is none, and nothing runs that could take it.

        Raises:
            UnavailableError: Temporal or the database is away.
        """
        return await self._settled(session_id, message_id)

    async def _settled(self, session_id: str, message_id: str | None) -> TurnStanding | None:
        """A turn stores its end before its run ends, so rows are read after Temporal has been asked.

        An unfinished row of a turn that Temporal does not run may belong to a turn that began in between. After
        `MAX_LOOKS` looks such a turn counts as failed: its workflow was terminated or lost.
        """
        row: TurnRecord | None = None
        for _ in range(MAX_LOOKS):
            running = await self.running(session_id)
            if running is not None and message_id is None:
                return TurnStanding(running.turn_id, running.status)
            async with self._database.read() as connection:
                turn_id = ""
                if message_id is not None:
                    message = await messages.get(connection, row_id(session_id, "user", message_id))
                    turn_id = (message.turn_id if message is not None else None) or ""
                if running is not None and turn_id in ("", running.turn_id):
                    taken_by = await turns.get(connection, session_id, turn_id) if turn_id else None
                    if taken_by is None or not taken_by.status.final:
                        return TurnStanding(turn_id, running.status)
                if turn_id:
                    row = await turns.get(connection, session_id, turn_id)
                else:
                    row = await turns.newest(connection, session_id)
            if row is not None and row.status.final:
                return TurnStanding(row.turn_id, row.status)
        return TurnStanding(row.turn_id, TurnStatus.FAILED) if row is not None else None

    async def query(self, session_id: str) -> Progress | None:
        """The progress of a session's running turn from its workflow; None: nothing runs, or no worker answers."""
        handle = self._client.get_workflow_handle(temporal.workflow_id(session_id))
        for _ in range(QUERY_TRIES):
            try:
                async with temporal.reachable(QUERY_TIMEOUT_S):
                    progress: Progress = await handle.query(
                        temporal.PROGRESS_QUERY,
                        Empty(),
                        result_type=Progress,
                        reject_condition=QueryRejectCondition.NOT_OPEN,
                        rpc_timeout=timedelta(seconds=QUERY_TIMEOUT_S),
                    )
                return progress
            except WorkflowQueryRejectedError:
                continue  # The run ended during the query. A long turn goes on in the next run.
            except (WorkflowQueryFailedError, UnavailableError, RPCError) as error:
                log.debug("no progress of session %s from its workflow: %s", session_id, error)
                return None
        return None

    async def progress(self, session_id: str, turn_id: str) -> Progress | None:
        """A turn's progress: from its workflow while it runs, from its row afterwards. None: there is no such turn.

        Raises:
            UnavailableError: it has no row that can be read, and Temporal does not answer.
        """
        try:
            row = await self._row(session_id, turn_id)
        except UnavailableError:
            if (live := await self._query_turn(session_id, turn_id)) is None:
                raise
            return live
        if row is not None and row.status.final:
            return progress_from_row(row)
        if (live := await self._query_turn(session_id, turn_id)) is not None:
            return live
        try:
            running = await self.running(session_id)
        except UnavailableError:
            if row is None:
                raise
            return progress_from_row(row)
        if running is not None and running.turn_id == turn_id:
            # It runs, and no worker answers.
            return await self._progress_of_silent(session_id, running, row)
        # The turn may have ended in the meantime. Or it has not begun, because the turn before it still closes. Its
        # messages are looked at first: they stop waiting when its row appears.
        accepted_at = await self._accepted_since(session_id, turn_id)
        row = await self._row(session_id, turn_id)
        if row is None and accepted_at is not None:
            return Progress(turn_id=turn_id, session_id=session_id, status=TurnStatus.RUNNING, started_at=accepted_at)
        if row is None or row.status.final:
            return progress_from_row(row) if row is not None else None
        lost = {"status": TurnStatus.FAILED, "error": turns.WORKFLOW_LOST}
        return progress_from_row(row).model_copy(update=lost)

    async def progress_of_row(self, row: TurnRecord) -> Progress:
        """The progress of a turn whose row was read; from that row alone while nothing newer can be had."""
        if row.status.final:
            return progress_from_row(row)
        try:
            return await self.progress(row.session_id, row.turn_id) or progress_from_row(row)
        except UnavailableError:
            return progress_from_row(row)

    async def newest_progress(self, session_id: str, newest: TurnRecord | None) -> Progress | None:
        """The progress of a session's newest turn, which may be newer than its newest row. None: no turn is known."""
        try:
            running = await self.running(session_id)
            if running is not None:
                return await self.progress(session_id, running.turn_id)
        except UnavailableError:
            return progress_from_row(newest) if newest is not None else None
        return await self.progress_of_row(newest) if newest is not None else None

    async def with_current_sub_sessions(self, progress: Progress) -> Progress:
        """The progress of an ended turn, with sub-sessions that ran at its end as they stand now."""
        records = await asyncio.gather(*(self._current(record) for record in progress.sub_sessions))
        return progress.model_copy(update={"sub_sessions": records})

    async def with_texts(self, progress: Progress) -> Progress:
        """The progress with its plan and the titles of its sub-sessions; without them while the database is away."""
        records, call_id = progress.sub_sessions, progress.plan_call_id
        if not records and not call_id:
            return progress
        try:
            async with self._database.read() as connection:
                titles = await sessions.titles(connection, [record.sub_session_id for record in records])
                shown = await conversation.result_in_turn(connection, progress.turn_id, call_id) if call_id else None
        except UnavailableError:
            return progress
        named = [record.model_copy(update={"task": titles.get(record.sub_session_id) or ""}) for record in records]
        return progress.model_copy(update={"sub_sessions": named, "plan": plan_of(shown or "")})

    async def _current(self, record: SubSessionRecord) -> SubSessionRecord:
        if record.status is not SubSessionState.RUNNING:
            return record
        try:
            turn_id = record.turn_id or await self._newest_turn_id(record.sub_session_id)
            now = await self.progress(record.sub_session_id, turn_id)
        except UnavailableError:
            return record
        if now is None:  # It was deleted.
            return record.model_copy(update={"status": SubSessionState.ERROR})
        current = {"turn_id": turn_id, "status": SUB_STATES[now.status], "ended_at": now.ended_at}
        return record.model_copy(update=current)

    async def _newest_turn_id(self, session_id: str) -> str:
        async with self._database.read() as connection:
            newest = await turns.newest(connection, session_id)
        return newest.turn_id if newest is not None else ""

    async def _query_turn(self, session_id: str, turn_id: str) -> Progress | None:
        progress = await self.query(session_id)
        return progress if progress is not None and progress.turn_id == turn_id else None

    async def _progress_of_silent(self, session_id: str, running: RunningTurn, row: TurnRecord | None) -> Progress:
        if row is None:  # No worker has opened it.
            return Progress(
                turn_id=running.turn_id,
                session_id=session_id,
                status=running.status,
                started_at=running.started_at,
            )
        stored = await self.stored(session_id, running.turn_id)
        progress = progress_from_row(row)
        return progress.model_copy(update={"round": stored.round}) if stored is not None else progress

    async def _accepted_since(self, session_id: str, turn_id: str) -> datetime | None:
        """When the oldest message was accepted that waits for this turn; None: none waits."""
        async with self._database.read() as connection:
            return await acceptance.waiting_since(connection, session_id, turn_id)

    async def _row(self, session_id: str, turn_id: str) -> TurnRecord | None:
        async with self._database.read() as connection:
            return await turns.get(connection, session_id, turn_id)


def progress_from_row(row: TurnRecord) -> Progress:
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
