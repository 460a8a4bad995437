"""Deliver a message: one signal-with-start, which Temporal decides atomically.

No turn runs: one starts with this message. One runs: the message joins it. Longhaul has no other queue. The row that
`accept` stores holds the message's text until a turn takes it, and names that turn.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Literal, TypeVar

from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from longhaul import temporal
from longhaul.contracts import FollowUp, Scope, TurnInput, TurnLimits, TurnStatus
from longhaul.db import acceptance, accounts, messages, turns, versions
from longhaul.db.acceptance import Accepted, WaitingMessage
from longhaul.db.accounts import Account
from longhaul.db.busy import OnBusy
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.messages import row_id
from longhaul.db.models import utc_now
from longhaul.db.sessions import Session
from longhaul.db.versions import NewVersion
from longhaul.errors import (
    InboxFullError,
    LonghaulError,
    NotFoundError,
    NotRetriedError,
    SessionBusyError,
    TurnRunsError,
    UnavailableError,
    UsageLimitError,
)
from longhaul.limits.access import may_use
from longhaul.limits.usage import UsageLimits
from longhaul.llm.models import Effort
from longhaul.settings import Settings
from longhaul.settings.models import ModelChoice, Tier
from longhaul.turns.quota import LOST_AFTER_S, TurnQuota
from longhaul.turns.status import TurnLookup
from longhaul.turns.stop import STOP_MAX_S, TurnStopper

log = logging.getLogger(__name__)
# A turn that was stopped may be followed by one for a message that arrived meanwhile.
REPLACE_TRIES = 4
REPLACE_PAUSE_S = 0.3
Mode = Literal["fast", "extended_thinking"]
T = TypeVar("T")


def limits(settings: Settings) -> TurnLimits:
    """The limits that workflow code decides by, as they are when a turn starts."""
    return TurnLimits.model_validate({name: getattr(settings, name) for name in TurnLimits.model_fields})


@dataclass(frozen=True)
class IncomingMessage:
    """A valid message on its way to a turn. Its sender chose the id; the same id again is the same message.

    `on_busy`: what becomes of it while a turn runs.
    `model`: one of the tiers or models that `Settings.choose` knows. Without `tier` and `model`, a new turn has the
    session's model; without `mode` and `effort`, it is fast. A follow-up leaves those of its turn as they are.
    `client_tools`: the id of the tools that its sender runs; empty: none. None: a new turn has none, a follow-up leaves
    those of its turn as they are.
    """

    id: str
    text: str
    context: dict[str, Any] | None = None
    mode: Mode | None = None
    tier: Tier | None = None
    model: str | None = None
    effort: Effort | None = None
    on_busy: OnBusy = OnBusy.JOIN
    client_tools: str | None = None

    @property
    def chosen(self) -> tuple[str, ...]:
        """What takes effect in a turn that runs already."""
        thinks = self.mode is not None or self.effort is not None
        answers = self.tier is not None or self.model is not None
        return (*(("mode",) if thinks else ()), *(("tier",) if answers else ()))

    @property
    def choice(self) -> dict[str, Any] | None:
        """What its row keeps of the choice, so that a later delivery of the row makes the same one."""
        chosen = {"mode": self.mode, "tier": self.tier, "model": self.model, "effort": self.effort}
        return {name: value for name, value in chosen.items() if value is not None} or None

    @classmethod
    def of_row(cls, row: WaitingMessage) -> "IncomingMessage":
        """A message whose row waits, as its sender had sent it."""
        return cls(row.client_message_id, row.content, row.context, **row.choice or {})

    @property
    def mode_of_turn(self) -> Mode:
        """The mode of a turn that begins with this message; the effort decides it, if there is one."""
        if self.effort is not None:
            return "fast" if self.effort == "none" else "extended_thinking"
        return self.mode or "fast"


@dataclass(frozen=True)
class Delivery:
    """Which turn takes a message. `started`: the turn starts with it. `waiting`: messages in the turn's inbox.

    `queued`: the turn begins when those before it have ended.
    """

    turn_id: str
    started: bool
    waiting: int
    queued: bool = False


class _BeginsTurnError(LonghaulError):
    """A message begins a turn, and whether its user may start one has not been looked up."""


@dataclass(frozen=True)
class _CostCheck:
    """Whether a user may start a turn by the limits of costs, looked up before a transaction that may need it."""

    looked_up: bool
    refusal: UsageLimitError | None = None

    def raise_refusal(self) -> None:
        if not self.looked_up:
            raise _BeginsTurnError
        if self.refusal is not None:
            raise self.refusal


class MessageDelivery:
    """Delivers messages to turns.

    Without `usage`, the limits of costs are not checked: what is delivered then was accepted before.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        client: Client,
        turns: TurnLookup,
        usage: UsageLimits | None = None,
    ) -> None:
        self._settings = settings
        self._usage = usage
        self._cost_limits = limits(settings).cost
        self._database = database
        self._client = client
        self._turns = turns
        self._quota = TurnQuota(settings, turns)

    async def deliver(
        self,
        user_id: str,
        session: Session,
        message: IncomingMessage,
        *,
        joins: bool = False,
        stopper: TurnStopper | None = None,
    ) -> Delivery:
        """Accept a message and make a turn take it; the same message again changes nothing.

        `joins`: the message probably joins a turn, so the limits of costs are only looked up if it does not.
        `stopper`: stops the turn that the message interrupts.

        Raises:
            NotFoundError: the session was deleted.
            InboxFullError: too many messages wait already.
            TooManyTurnsError: the message would begin a turn, and too many turns of this user, or of this tree, run.
            UsageLimitError: the message would begin a turn, and this user has spent what the limits allow.
            MessageIdUsedError: the id belongs to a message with other content.
            SessionBusyError: a turn runs, and the message says to be rejected then.
            UnavailableError: try again with the same message id; no step is done twice.
        """
        check = _CostCheck(looked_up=False) if joins else await self._check_costs(user_id)
        try:
            accepted = await self._accept(user_id, session, message, check)
        except _BeginsTurnError:
            accepted = await self._accept(user_id, session, message, await self._check_costs(user_id))
        if accepted.stops and stopper is not None:
            # First, because a turn that ends finds the row of the message, whether its signal has arrived or not.
            await stopper.request_stop(session.id, only_turn=accepted.stops)
        return await self._start_or_join(user_id, session, message, accepted)

    async def _check_costs(self, user_id: str) -> _CostCheck:
        if self._usage is None:
            return _CostCheck(looked_up=True)
        return _CostCheck(looked_up=True, refusal=await self._usage.refusal(user_id, self._cost_limits))

    async def replace(
        self, user_id: str, session: Session, message: IncomingMessage, *, of: str, stopper: TurnStopper
    ) -> Delivery:
        """Replace the message `of`, and what follows it, by a new version, and make a turn of its own answer that.

        A turn that runs is stopped first; its rows are part of what is replaced.

        Raises:
            TurnRunsError: turns run on and on; nothing was replaced. Otherwise as `deliver`.
        """
        check = await self._check_costs(user_id)
        version = NewVersion(message.id, of, message.text, message.context, message.choice, message.client_tools)
        lost_turn_id = ""

        async def store(lost: Collection[str]) -> Accepted:
            async with self._database.write() as connection:
                accepted = await versions.replace(connection, session.id, user_id, version, lost_turn_id=lost_turn_id)
                if not accepted.taken:
                    check.raise_refusal()
                    await self._check_running(connection, user_id, session, lost)
            return accepted

        for tries_left in reversed(range(REPLACE_TRIES)):
            try:
                accepted = await self._quota.within(store)
                return await self._start_or_join(user_id, session, message, accepted)
            except TurnRunsError as error:
                if not tries_left:
                    raise
                if await stopper.stop(session.id, STOP_MAX_S) is None:
                    lost_turn_id = error.turn_id
                    await asyncio.sleep(REPLACE_PAUSE_S)
        raise TurnRunsError("")

    async def _start_or_join(
        self, user_id: str, session: Session, message: IncomingMessage, accepted: Accepted
    ) -> Delivery:
        if accepted.taken:
            return _delivery(accepted)
        async with temporal.reachable(self._settings.temporal_rpc_timeout):
            handle = await self._signal_with_start(user_id, session, message, accepted)
        # From here on the message is safe in Temporal, so no failure may be reported to its sender.
        # A private field, but the only exact answer: server 1.31 omits `first_execution_run_id` when a signal joins a
        # run, newer servers fill it in.
        response: Any = handle._start_workflow_response
        if response.started:
            return await self._delivered_to_new_run(accepted)
        return _delivery(accepted)

    async def _delivered_to_new_run(self, accepted: Accepted) -> Delivery:
        """The signal found no run. Another turn may have taken the message before its signal, and ended; else the new
        run takes it.
        """
        try:
            async with self._database.read() as connection:
                row = await messages.get(connection, accepted.row_id)
        except UnavailableError as error:
            log.warning("message %s was delivered; which turn takes it is not certain: %s", accepted.row_id, error)
            row = None
        if row is not None and row.turn_id is not None and row.turn_id != accepted.run_turn_id:
            return Delivery(row.turn_id, started=False, waiting=accepted.waiting)
        return Delivery(accepted.run_turn_id, started=True, waiting=accepted.waiting)

    async def _accept(self, user_id: str, session: Session, message: IncomingMessage, check: _CostCheck) -> Accepted:
        store = partial(self._store, user_id, session, message, check)
        try:
            return await self._quota.within(partial(store, self._settings.max_pending_messages))
        except InboxFullError:
            # Rows that wait while no turn runs belong to posts that never reached Temporal. They fill no inbox.
            if await self._turns.running(session.id) is not None:
                raise
            return await self._quota.within(partial(store, 0))
        except SessionBusyError as error:
            if await self._turns.running(session.id) is not None or await self._may_start(session.id, error.turn_id):
                raise
            # The turn's workflow is lost, or never started. A message that joins it begins the next one.
            joining = dataclasses.replace(message, on_busy=OnBusy.JOIN)
            return await self._accept(user_id, session, joining, check)

    async def _may_start(self, session_id: str, turn_id: str) -> bool:
        """Whether a turn's first message was accepted a moment ago, so that its signal may be on its way."""
        async with self._database.read() as connection:
            since = await acceptance.waiting_since(connection, session_id, turn_id)
        return since is not None and since > utc_now() - timedelta(seconds=LOST_AFTER_S)

    async def _store(
        self,
        user_id: str,
        session: Session,
        message: IncomingMessage,
        check: _CostCheck,
        limit: int,
        lost: Collection[str],
    ) -> Accepted:
        async with self._database.write() as connection:

            async def may_begin() -> None:
                check.raise_refusal()
                await self._check_running(connection, user_id, session, lost)

            return await acceptance.accept(
                connection,
                session_id=session.id,
                user_id=user_id,
                message_id=message.id,
                content=message.text,
                context=message.context,
                choice=message.choice,
                client_tools=message.client_tools,
                limit=limit,
                may_begin=may_begin,
                on_busy=message.on_busy,
            )

    async def _check_running(
        self, connection: Connection, user_id: str, session: Session, lost: Collection[str]
    ) -> None:
        """Refuse one turn more than a user, or the sub-sessions of a tree, may have at once.

        Raises:
            TooManyTurnsError: so many run, not counting those in `lost`.
        """
        await self._quota.check_user(connection, user_id, session.id, lost)
        if session.parent_session_id is not None:
            root = session.root_session_id or session.id
            await self._quota.check_tree(connection, user_id, root, session.id, lost)

    async def retry(self, user_id: str, session: Session, turn_id: str) -> Delivery:
        """Take up a session's newest turn, which failed, in a new turn: what it did stays, its last call is made again.

        The same call again names the same turn.

        Raises:
            NotFoundError: the session has no such turn.
            NotRetriedError: it has not failed, or another turn followed.
            TurnRunsError: a turn runs.
            TooManyTurnsError: too many turns of this user run.
            UsageLimitError: this user has spent what the limits allow.
            UnavailableError: try again; nothing is done twice.
        """
        new_id = row_id(session.id, "retry", turn_id)
        async with self._database.read() as connection:
            failed = await turns.get(connection, session.id, turn_id)
            newest = await turns.newest(connection, session.id)
            waiting = await acceptance.list_waiting(connection, session.id)
            is_done = await turns.get(connection, session.id, new_id) is not None
        if failed is None or newest is None:
            raise NotFoundError(f"There is no turn {turn_id} of session {session.id}.")
        if is_done:
            return Delivery(new_id, started=False, waiting=0)
        if newest.turn_id != turn_id:
            raise NotRetriedError(turn_id, f"turn {newest.turn_id} followed it")
        if failed.status in (TurnStatus.COMPLETED, TurnStatus.CANCELLED):
            raise NotRetriedError(turn_id, f"it is {failed.status}, not failed")
        if waiting:
            raise TurnRunsError("")
        (await self._check_costs(user_id)).raise_refusal()

        async def check(lost: Collection[str]) -> None:
            async with self._database.write() as connection:
                await self._check_running(connection, user_id, session, lost)

        await self._quota.within(check)
        choice = self._first_of((failed.model, failed.tier), await self._account(user_id))
        turn = self._turn_input(user_id, session, new_id, choice, failed.mode, "").model_copy(
            update={"retry_of": turn_id}
        )
        for tries_left in reversed(range(REPLACE_TRIES)):
            try:
                async with temporal.reachable(self._settings.temporal_rpc_timeout):
                    await self._start(turn, f"It retries turn `{turn_id}`.")
                return Delivery(new_id, started=True, waiting=0)
            except WorkflowAlreadyStartedError:
                running = await self._turns.running(session.id)
                if running is not None and running.turn_id == new_id:
                    return Delivery(new_id, started=False, waiting=0)
                # The run of a turn goes on for a moment after its end is stored.
                if not tries_left or (running is not None and running.turn_id != turn_id):
                    raise TurnRunsError(running.turn_id if running is not None else "") from None
            await asyncio.sleep(REPLACE_PAUSE_S)
        raise TurnRunsError("")

    async def when_idle(self, session_id: str, change: Callable[[Connection, str], Awaitable[T]]) -> T:
        """Change a session in which nothing runs. `change` is given the id of a turn whose workflow is lost, or "".

        Raises:
            TurnRunsError: a turn runs, or messages wait for one.
        """
        try:
            async with self._database.write() as connection:
                return await change(connection, "")
        except TurnRunsError as error:
            if not error.turn_id or await self._turns.running(session_id) is not None:
                raise
            lost_turn_id = error.turn_id
        async with self._database.write() as connection:
            return await change(connection, lost_turn_id)

    async def _choice(self, user_id: str, message: IncomingMessage, session: Session) -> ModelChoice:
        """What answers a message. A model that may not be chosen any more is left out."""
        return self._first_of((message.model, message.tier, session.model), await self._account(user_id))

    async def _account(self, user_id: str) -> Account | None:
        """The account that decides which models its user may choose; None: none is kept for some."""
        if not self._settings.model_access:
            return None
        async with self._database.read() as connection:
            return await accounts.get(connection, user_id)

    def _first_of(self, wanted: Sequence[str | None], account: Account | None) -> ModelChoice:
        """The first of these names of models and tiers that may be chosen, else the model for everybody."""
        for choice in (self._settings.choose(name) for name in wanted if name):
            if choice is not None and (account is None or may_use(self._settings, account, choice.model)):
                return choice
        return ModelChoice("standard", self._settings.model_standard)

    async def _signal_with_start(
        self, user_id: str, session: Session, message: IncomingMessage, accepted: Accepted
    ) -> WorkflowHandle[Any, Any]:
        mode, effort = message.mode_of_turn, message.effort or ""
        choice = await self._choice(user_id, message, session)
        turn = self._turn_input(user_id, session, accepted.run_turn_id, choice, mode, effort)
        signal = FollowUp(
            message_id=message.id,
            received_at=utc_now(),
            turn_id=accepted.turn_id,
            model=turn.model,
            mode=turn.mode,
            tier=turn.tier,
            effort=effort,
            chosen=message.chosen,
        )
        return await self._start(turn, f"First message `{message.id}`.", signal)

    def _turn_input(
        self, user_id: str, session: Session, turn_id: str, choice: ModelChoice, mode: str, effort: str
    ) -> TurnInput:
        settings = self._settings
        scope = Scope.model_validate(session.scope or {})
        return TurnInput(
            session_id=session.id,
            user_id=user_id,
            turn_id=turn_id,
            model=choice.model,
            mode=mode,
            tier=choice.tier,
            effort=effort,
            limits=limits(settings),
            scope=scope.model_copy(update={"root_session_id": session.root_session_id or session.id}),
            rows_decide=True,
        )

    async def _start(self, turn: TurnInput, began: str, signal: FollowUp | None = None) -> WorkflowHandle[Any, Any]:
        """Start a turn's workflow. With a signal: or else bring the signal to the workflow that runs.

        Raises:
            WorkflowAlreadyStartedError: a workflow runs, and there is no signal for it.
        """
        conflict = WorkflowIDConflictPolicy.USE_EXISTING if signal else WorkflowIDConflictPolicy.FAIL
        return await self._client.start_workflow(
            temporal.TURN_WORKFLOW,
            turn,
            id=temporal.workflow_id(turn.session_id),
            task_queue=self._settings.task_queue,
            task_timeout=temporal.WORKFLOW_TASK_MAX,
            start_signal=temporal.FOLLOW_UP_SIGNAL if signal else None,
            start_signal_args=[signal] if signal else [],
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=conflict,
            memo={temporal.TURN_ID_MEMO: turn.turn_id},
            search_attributes=temporal.search_attributes_of(turn),
            priority=temporal.priority_of(turn.user_id),
            static_summary=f"turn · {turn.model} · session {turn.session_id[:8]}",
            static_details=(
                f"Turn `{turn.turn_id}` of session `{turn.session_id}`, user `{turn.user_id}`. {began}\n\n"
                f"Tier {turn.tier}, mode {turn.mode}. The conversation is in the database, not here."
            ),
            rpc_timeout=self._rpc_timeout,
        )

    @property
    def _rpc_timeout(self) -> timedelta:
        return timedelta(seconds=self._settings.temporal_rpc_timeout)


def _delivery(accepted: Accepted) -> Delivery:
    return Delivery(accepted.turn_id, accepted.starts_turn, accepted.waiting, accepted.queued)
