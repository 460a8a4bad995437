"""Deliver a message: one signal-with-start, which Temporal decides atomically.

No turn runs: one starts with this message. One runs: the message joins it. There is no lock, no check in advance and no
queue of ours. The row that `accept` stores holds the message's text until a turn takes it.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import uuid4

from temporalio.api.enums.v1 import PendingWorkflowTaskState
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError

from longhaul import temporal
from longhaul.contracts import FollowUp, Scope, TurnInput, TurnLimits
from longhaul.db import messages, turns
from longhaul.db.database import Database
from longhaul.db.messages import Accepted
from longhaul.db.models import utc_now
from longhaul.db.sessions import Session
from longhaul.errors import InboxFullError, UnavailableError
from longhaul.settings import Settings
from longhaul.turns.status import TurnLookup

log = logging.getLogger(__name__)
# A workflow task takes some milliseconds. One that takes longer (its database is away) is not waited for.
TASK_LOOKS, TASK_LOOK_S = 25, 0.01
Mode = Literal["fast", "extended_thinking"]
Tier = Literal["standard", "advanced"]


def limits(settings: Settings) -> TurnLimits:
    """The limits that workflow code decides by, as they are when a turn starts."""
    return TurnLimits.model_validate({name: getattr(settings, name) for name in TurnLimits.model_fields})


@dataclass(frozen=True)
class IncomingMessage:
    """A valid message on its way to a turn. Its sender chose the id; the same id again is the same message.

    Without `mode` or `tier`, a follow-up leaves those of its turn as they are; a new turn is fast and standard.
    """

    id: str
    text: str
    context: dict[str, Any] | None = None
    mode: Mode | None = None
    tier: Tier | None = None


@dataclass(frozen=True)
class Delivery:
    """Which turn takes a message. `started`: the turn starts with it. `waiting`: messages in the turn's inbox."""

    turn_id: str
    started: bool
    waiting: int


class MessageDelivery:
    """Delivers messages to turns."""

    def __init__(self, settings: Settings, database: Database, client: Client, turns: TurnLookup) -> None:
        self._settings = settings
        self._database = database
        self._client = client
        self._turns = turns

    async def deliver(self, user_id: str, session: Session, message: IncomingMessage) -> Delivery:
        """Accept a message and make a turn take it; the same message again changes nothing.

        Raises:
            NotFoundError: the session was deleted.
            InboxFullError: too many messages wait already.
            MessageIdUsedError: the id belongs to a message with other content.
            UnavailableError: try again with the same message id; no step is done twice.
        """
        accepted = await self._accept(user_id, session.id, message)
        if accepted.placed_in is not None:
            return await self._placed(session.id, message.id, accepted.placed_in, accepted.waiting)
        turn_id = str(uuid4())
        async with temporal.reachable(self._settings.temporal_rpc_timeout):
            handle = await self._signal_with_start(user_id, session, message, turn_id)
        # From here on the message is on its way for good. An error would make its sender send it again.
        try:
            async with temporal.reachable(self._settings.temporal_rpc_timeout):
                return await self._turn_of(handle, accepted, message.id, turn_id)
        except (UnavailableError, RPCError) as error:
            log.warning("message %s is delivered, its turn could not be looked up: %s", message.id, error)
        return await self._best_known(session.id, accepted, turn_id)

    async def _turn_of(
        self, handle: WorkflowHandle[Any, Any], accepted: Accepted, message_id: str, turn_id: str
    ) -> Delivery:
        # A private field, but the only exact answer: server 1.31 omits `first_execution_run_id` when a signal joins a
        # run, newer servers fill it in.
        response: Any = handle._start_workflow_response
        if not response.started:
            return await self._joined(handle, accepted, message_id)
        # A turn takes all messages that wait, some before their signal. If it has ended, the turn started here has
        # nothing to do. The earlier turn stored the message's place before it ended, so this look is exact.
        async with self._database.read() as connection:
            row = await messages.get(connection, accepted.row_id)
        if row is not None and row.turn_id not in (None, turn_id):
            return await self._placed(row.session_id, message_id, row.turn_id, accepted.waiting)
        return Delivery(turn_id, started=True, waiting=accepted.waiting)

    async def _best_known(self, session_id: str, accepted: Accepted, turn_id: str) -> Delivery:
        """The session's unfinished turn according to its rows; without one, the turn that this message may start."""
        try:
            async with self._database.read() as connection:
                newest = await turns.newest(connection, session_id)
        except UnavailableError:
            newest = None
        if newest is not None and not newest.status.final:
            return Delivery(newest.turn_id, started=False, waiting=accepted.waiting)
        return Delivery(turn_id, started=True, waiting=accepted.waiting)

    async def _accept(self, user_id: str, session_id: str, message: IncomingMessage) -> Accepted:
        try:
            return await self._store(user_id, session_id, message, self._settings.max_pending_messages)
        except InboxFullError:
            # Rows that wait while no turn runs belong to posts that never reached Temporal. They fill no inbox.
            if await self._turns.running(session_id) is not None:
                raise
        return await self._store(user_id, session_id, message, 0)

    async def _store(self, user_id: str, session_id: str, message: IncomingMessage, limit: int) -> Accepted:
        async with self._database.write() as connection:
            return await messages.accept(
                connection,
                session_id=session_id,
                user_id=user_id,
                message_id=message.id,
                content=message.text,
                context=message.context,
                limit=limit,
            )

    async def _placed(self, session_id: str, message_id: str, turn_id: str, waiting: int) -> Delivery:
        try:
            async with self._database.read() as connection:
                turn = await turns.get(connection, session_id, turn_id)
        except UnavailableError:
            return Delivery(turn_id, started=False, waiting=waiting)  # A turn took the message, so this is no error.
        return Delivery(turn_id, turn is not None and turn.trigger_message_id == message_id, waiting)

    async def _joined(self, handle: WorkflowHandle[Any, Any], accepted: Accepted, message_id: str) -> Delivery:
        # Ask the run that was signalled. Another turn of this session may run under the same workflow id by now.
        run = self._client.get_workflow_handle(handle.id, run_id=handle.result_run_id)
        memo = await self._memo_after_task(run)
        if temporal.NEXT_TURN_ID_MEMO not in memo:
            return Delivery(
                memo[temporal.TURN_ID_MEMO], memo.get(temporal.MESSAGE_ID_MEMO) == message_id, accepted.waiting
            )
        # The turn is closing. Either it took the message before that (its row says so), or the next turn takes it.
        async with self._database.read() as connection:
            row = await messages.get(connection, accepted.row_id)
        if row is not None and row.turn_id is not None:
            return await self._placed(row.session_id, message_id, row.turn_id, accepted.waiting)
        return Delivery(memo[temporal.NEXT_TURN_ID_MEMO], started=True, waiting=accepted.waiting)

    async def _memo_after_task(self, run: WorkflowHandle[Any, Any]) -> Mapping[str, Any]:
        """The memo after the workflow task that may have been running when the signal arrived.

        That task may have decided to close the turn, which shows only when it completes.
        """
        described = await run.describe(rpc_timeout=self._rpc_timeout)
        in_flight = described.raw_description.pending_workflow_task
        if in_flight.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_STARTED:
            for _ in range(TASK_LOOKS):
                await asyncio.sleep(TASK_LOOK_S)
                described = await run.describe(rpc_timeout=self._rpc_timeout)
                if described.raw_description.pending_workflow_task.started_time != in_flight.started_time:
                    break
        return await described.memo()

    async def _signal_with_start(
        self, user_id: str, session: Session, message: IncomingMessage, turn_id: str
    ) -> WorkflowHandle[Any, Any]:
        settings = self._settings
        mode, tier = message.mode or "fast", message.tier or "standard"
        model = settings.model_of(tier)
        scope = Scope.model_validate(session.scope or {})
        turn = TurnInput(
            session_id=session.id,
            user_id=user_id,
            turn_id=turn_id,
            model=model,
            mode=mode,
            tier=tier,
            limits=limits(settings),
            scope=scope.model_copy(update={"root_session_id": session.root_session_id or session.id}),
        )
        return await self._client.start_workflow(
            temporal.TURN_WORKFLOW,
            turn,
            id=temporal.workflow_id(session.id),
            task_queue=settings.task_queue,
            start_signal=temporal.FOLLOW_UP_SIGNAL,
            start_signal_args=[
                FollowUp(
                    message_id=message.id,
                    received_at=utc_now(),
                    model=model,
                    mode=mode,
                    tier=tier,
                    chosen=tuple(name for name in ("mode", "tier") if getattr(message, name) is not None),
                )
            ],
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            memo={temporal.TURN_ID_MEMO: turn_id, temporal.MESSAGE_ID_MEMO: message.id},
            search_attributes=temporal.search_attributes_of(turn),
            static_summary=f"turn · {model} · session {session.id[:8]}",
            static_details=(
                f"Turn `{turn_id}` of session `{session.id}`, user `{user_id}`, started by message `{message.id}`.\n\n"
                f"Tier {tier}, mode {mode}. The conversation is in the database, not here."
            ),
            rpc_timeout=self._rpc_timeout,
        )

    @property
    def _rpc_timeout(self) -> timedelta:
        return timedelta(seconds=self._settings.temporal_rpc_timeout)
