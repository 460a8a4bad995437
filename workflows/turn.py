"""A turn of a session: the workflow behind every message. State, signals, query and loop.

Three rules keep messages safe. Signal handlers only append to the inbox. There is no `await` between the last look at
an empty inbox and the return, so Temporal refuses to close a run that an unhandled signal has reached. And a message
that arrives when the turn has ended, but its run has not, begins the next turn under the same workflow id.

A store is never interrupted: a Stop that arrives during a store takes effect after it. Otherwise messages that were
taken from the inbox would be lost, and a turn could end without its last rows.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.compaction import CompactionActivities
    from activities.model import ModelActivities
    from activities.turns import TurnActivities
    from longhaul import temporal
    from longhaul.contracts import (
        SUB_STATES,
        CallAnswered,
        CallModel,
        CloseTurn,
        CompactContext,
        CostLimits,
        Empty,
        FollowUp,
        ModelAnswer,
        OpenTurn,
        Progress,
        SubSessionEnded,
        TakeInbox,
        TurnInput,
        TurnResult,
        TurnStatus,
    )
    from longhaul.errors import BUDGET_REACHED, TURN_FAILED, USAGE_LIMIT
    from workflows import policies
    from workflows.state import RunningTurn
    from workflows.tools import ToolCalls, cause_of, type_of

T = TypeVar("T")
TIME_IS_UP = "The time budget is used up."


class TurnLoop:
    """What both turn workflows share: they run one turn from its first message to its end."""

    @workflow.init
    def __init__(self, request: TurnInput) -> None:
        self._turn = RunningTurn(request)
        self._tools = ToolCalls(self._turn)
        self._round_limit_reached = False
        self._next_turn_id = ""
        self._rows_name_next = False
        self._messages_waited_at_close = False
        self._messages_wait = False
        self._must_go_on = False
        self._compaction_failed = False
        self._budget_reached = False

    @workflow.signal(name=temporal.FOLLOW_UP_SIGNAL)
    def follow_up(self, message: FollowUp) -> None:
        """A message has been accepted; the loop takes it at its next boundary."""
        self._turn.inbox.append(message)

    @workflow.signal(name=temporal.SUB_SESSION_ENDED_SIGNAL)
    def sub_session_ended(self, ended: SubSessionEnded) -> None:
        """A turn of a sub-session of this session has ended."""
        self._turn.sub_session_ended(ended)

    @workflow.signal(name=temporal.CALL_ANSWERED_SIGNAL)
    def call_answered(self, answered: CallAnswered) -> None:
        """A call that waits for a person or a client has been answered."""
        self._turn.answered.append(answered.approval_id)

    @workflow.query(name=temporal.PROGRESS_QUERY)
    def progress(self, _: Empty) -> Progress:
        """How the turn stands."""
        return self._turn.visible_progress()

    async def _run(self) -> TurnResult:
        """The whole turn.

        Raises:
            ApplicationError: the turn failed (after everything about it has been stored).
            asyncio.CancelledError: the turn was stopped (likewise).
        """
        turn = self._turn
        while True:
            if not await self._answer():
                return self._end()  # a late duplicate of an answered message, or another turn begins first
            if turn.ended_at is not None or await self._closed():
                break
        await self._signal_parent()
        return self._end()

    async def _answer(self) -> bool:
        """Answer the messages of the turn and set its status; False: there was nothing to answer or to close."""
        turn = self._turn
        try:
            answered = await self._within_budget()
            turn.status = TurnStatus.COMPLETED
            return answered
        except (asyncio.CancelledError, FailureError) as error:
            stopped = is_cancelled_exception(error) or workflow.cancellation_reason() is not None
            turn.status = TurnStatus.CANCELLED if stopped else TurnStatus.FAILED
            turn.error = None if stopped else cause_of(error)
            self._budget_reached = not stopped and type_of(error) == BUDGET_REACHED
        except Exception as error:  # noqa: BLE001  # stored and shown, never swallowed
            # A defect in this code must end the turn visibly, with a row, and not as a workflow task retried for ever.
            workflow.logger.exception("turn failed by a defect")
            turn.status = TurnStatus.FAILED
            # The exception's text may hold what people wrote; the log has it.
            turn.error = f"The turn failed by a defect in Longhaul ({type(error).__name__})."
        return True

    async def _closed(self) -> bool:
        """Close the turn; False: it must go on. A turn that cannot be closed ends as failed."""
        try:
            return await self._close()
        except Exception as error:  # noqa: BLE001  # stored and shown, never swallowed
            await self._close_as_failed(error)
            return True

    async def _within_budget(self) -> bool:
        """Open the turn and work until it is done, or until its time budget ends it; False: nothing to answer."""
        turn = self._turn
        if not turn.state.opened and not await self._open():
            return False
        self._raise_if_stopped()
        budget = turn.time_budget
        deadline = budget.deadline if budget is not None else None
        seconds_left = (deadline - workflow.now()).total_seconds() if deadline is not None else None
        try:
            async with asyncio.timeout(seconds_left) as limit:
                await self._work()
        except TimeoutError:
            raise self._out_of_time() from None
        except FailureError:
            if limit.expired():
                raise self._out_of_time() from None
            raise
        return True

    async def _work(self) -> None:
        """Rounds of a model call and its tools, until an answer asks for no tool and no message waits."""
        turn = self._turn
        if self._must_go_on:
            await self._take_inbox(ask_rows=True)
            self._raise_if_stopped()
        while True:
            if turn.state.round >= turn.request.limits.max_rounds:
                self._round_limit_reached = True
                return
            if turn.state.compaction_due:
                await self._compact()
                self._raise_if_stopped()
            turn.update(round=turn.state.round + 1)
            answer = await self._call_model()
            if answer.turn_ended_at is not None:
                turn.ended_at = answer.turn_ended_at
                return
            if answer.tool_calls:
                turn.update(step_open=True)
                self._raise_if_stopped()
                await self._tools.run(answer)
            took_messages = await self._take_inbox(ask_rows=turn.request.rows_decide and not answer.tool_calls)
            if not answer.tool_calls and not took_messages:
                return
            self._raise_if_stopped()
            self._continue_as_new_if_long()

    def _raise_if_stopped(self) -> None:
        """Obey a Stop, or the end of the time budget, that no `await` raised.

        It arrived during a store, or as an activity ended.
        """
        if self._turn.stop_requested:
            raise asyncio.CancelledError("stopped")
        if self._turn.out_of_time:
            raise self._out_of_time()

    def _out_of_time(self) -> ApplicationError:
        budget = self._turn.time_budget
        text = budget.time_used_up(self._turn.request.session_id) if budget is not None else TIME_IS_UP
        return ApplicationError(text, type=BUDGET_REACHED)

    async def _open(self) -> bool:
        turn, request = self._turn, self._turn.request
        signalled = list(turn.inbox)
        turn.take_inbox()
        opened = await self._uninterrupted(
            workflow.execute_local_activity_method(
                TurnActivities.open_turn,
                OpenTurn(
                    turn=turn.ref,
                    model=turn.model,
                    mode=turn.mode,
                    tier=turn.tier,
                    scope=request.scope,
                    started_at=turn.state.started_at,
                    cost_limits=request.limits.cost if request.follows_turn else CostLimits(),
                    retry_of=request.retry_of,
                ),
                **policies.placing(request.limits, "open turn"),
            )
        )
        if opened.next_turn_id:
            self._next_turn_id, self._messages_wait, self._rows_name_next = opened.next_turn_id, True, True
            turn.put_back(signalled)
            return False
        turn.update(opened=True, budgets=opened.budgets, compaction_due=opened.compaction_due)
        turn.note_client_tools(opened.client_tools)
        turn.mark_taken(opened.taken)
        turn.update_published(opened.published)
        if opened.refusal:
            raise ApplicationError(opened.refusal, type=USAGE_LIMIT)
        return bool(opened.taken) or opened.retries

    async def _call_model(self) -> ModelAnswer:
        turn, request = self._turn, self._turn.request
        self._show_details()
        answer: ModelAnswer = await workflow.execute_activity_method(
            ModelActivities.call_model,
            CallModel(
                turn=turn.ref,
                round=turn.state.round,
                model=turn.model,
                mode=turn.mode,
                tier=turn.tier,
                scope=turn.scope,
                step_open=turn.state.step_open,
                progress=turn.progress() if request.rows_decide else None,
                fallback=turn.state.fallback,
                effort=turn.effort,
                client_tools=turn.state.client_tools,
            ),
            **policies.calling_model(request.limits, f"round {turn.state.round} · {turn.calling}"),
        )
        turn.update_published(answer.published)
        turn.finish_reason = answer.finish_reason
        turn.update(usage=turn.state.usage + answer.usage, answered_with_text=answer.has_text, step_open=False)
        turn.update(compaction_due=answer.compaction_due and not self._compaction_failed, fallback=answer.fallback)
        self._show_details()
        return answer

    async def _compact(self) -> None:
        """Let the older part of the conversation be summarised. Without a summary the turn goes on all the same, and
        does not ask for one again in this run."""
        turn, request = self._turn, self._turn.request
        turn.update(compaction_due=False)
        try:
            compacted = await workflow.execute_activity_method(
                CompactionActivities.compact_context,
                CompactContext(turn=turn.ref, round=turn.state.round, model=turn.calling, scope=turn.scope),
                **policies.compacting(request.limits, "compact the conversation"),
            )
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.exception("the conversation could not be compacted")
            self._compaction_failed = True
            return
        self._compaction_failed = not compacted.compacted
        turn.update_published(compacted.published)
        turn.update(usage=turn.state.usage + compacted.usage)

    async def _take_inbox(self, *, ask_rows: bool) -> bool:
        """Place the follow-ups that wait; whether one of them was new.

        `ask_rows`: look for their rows even if no signal has arrived. A message is accepted before its signal is sent,
        and its sender may die in between.
        """
        turn = self._turn
        signalled = len(turn.take_inbox())
        if not signalled and not ask_rows:
            return False
        what = {0: "waiting messages", 1: "1 follow-up"}.get(signalled, f"{signalled} follow-ups")
        taken = await self._uninterrupted(
            workflow.execute_local_activity_method(
                TurnActivities.take_inbox,
                TakeInbox(turn=turn.ref, round=turn.state.round),
                **policies.placing(turn.request.limits, f"take {what}"),
            )
        )
        turn.note_client_tools(taken.client_tools)
        turn.mark_taken(taken.taken)
        turn.update_published(taken.published)
        return bool(taken.taken)

    async def _uninterrupted(self, store: Coroutine[Any, Any, T]) -> T:
        """Wait until a store has ended; `_raise_if_stopped` obeys a Stop that arrives meanwhile."""
        task = asyncio.create_task(store)
        while True:
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled():
                    raise

    def _continue_as_new_if_long(self) -> None:
        """Go on in a fresh history, with the inbox; the turn keeps its id."""
        turn = self._turn
        max_events = turn.request.limits.continue_as_new_events
        events = workflow.info().get_current_history_length()
        if workflow.info().is_continue_as_new_suggested() or 0 < max_events < events:
            turn.update(sub_sessions=list(turn.sub_sessions.values()))
            workflow.continue_as_new(turn.request.model_copy(update={"state": turn.state, "inbox": list(turn.inbox)}))

    async def _close(self) -> bool:
        """Store the turn's end; False: it must go on, because messages have been accepted for it."""
        turn = self._turn
        stopped = turn.status is TurnStatus.CANCELLED
        await self._uninterrupted(self._tools.stop() if stopped else self._tools.settle())
        turn.ended_at = workflow.now()
        turn.tools_running.clear()
        self._next_turn_id = str(workflow.uuid4())
        if not turn.request.rows_decide:
            # In versions before `rows_decide`, senders read the next turn's id from this memo; their histories need it.
            workflow.upsert_memo({temporal.NEXT_TURN_ID_MEMO: self._next_turn_id})
        self._messages_waited_at_close = bool(turn.waiting_messages)
        if stopped:
            # Stop means: spend no more. Messages that wait are kept as rows, for the next turn to see.
            turn.take_inbox()
        return await self._store_end()

    async def _close_as_failed(self, error: Exception) -> None:
        """The turn's end could not be stored. Store at least that the turn failed, so that its row does not read as
        running. If this fails too, the run still ends as failed, and the next turn takes the messages that wait.
        """
        turn = self._turn
        workflow.logger.exception("the turn could not be closed", exc_info=error)
        turn.status, turn.ended_at = TurnStatus.FAILED, turn.ended_at or workflow.now()
        cause = (
            cause_of(error) if isinstance(error, FailureError) else f"a defect in Longhaul ({type(error).__name__})."
        )
        turn.error = f"The end of the turn could not be stored: {cause}"
        try:
            await self._store_end()
        except FailureError:
            workflow.logger.exception("the turn's row still reads as running")
            self._messages_wait = self._messages_waited_at_close or bool(turn.waiting_messages)

    async def _store_end(self) -> bool:
        turn, request = self._turn, self._turn.request
        closed = await self._uninterrupted(
            workflow.execute_activity_method(
                TurnActivities.close_turn,
                CloseTurn(
                    turn=turn.ref,
                    progress=turn.progress().model_copy(update={"inbox": []}),
                    answered_with_text=turn.state.answered_with_text,
                    budget_reached=self._budget_reached and turn.status is TurnStatus.FAILED,
                    finish_reason=turn.finish_reason,
                    round_limit_reached=self._round_limit_reached,
                    step_open=turn.state.step_open,
                    # A turn that could not take its first messages keeps them: another turn would fail in the same way.
                    next_turn_id=self._next_turn_id if turn.state.opened else "",
                    model=turn.model,
                    mode=turn.mode,
                    tier=turn.tier,
                ),
                **policies.storing(request.limits, f"close turn · {turn.status}"),
            )
        )
        if not closed.ended:
            turn.status, turn.ended_at, self._must_go_on = TurnStatus.RUNNING, None, True
            return False
        if closed.status is not None:
            turn.status, turn.error = closed.status, None
        self._next_turn_id = closed.next_turn_id or self._next_turn_id
        self._messages_wait = self._rows_name_next = bool(closed.next_turn_id)
        return True

    async def _signal_parent(self) -> None:
        """A turn of the session above, this one or a later one, may wait for this end; having none is no error."""
        request = self._turn.request
        if not request.scope.ancestors:
            return
        parent = workflow.get_external_workflow_handle(temporal.workflow_id(request.scope.ancestors[-1]))
        ended = SubSessionEnded(
            sub_session_id=request.session_id, turn_id=request.turn_id, status=SUB_STATES[self._turn.status]
        )
        try:
            await self._uninterrupted(parent.signal(temporal.SUB_SESSION_ENDED_SIGNAL, ended))
        except FailureError:
            workflow.logger.info("no turn of the parent session runs")

    def _end(self) -> TurnResult:
        """Leave the run; nothing may be awaited from here on."""
        turn = self._turn
        turn.closed = True
        self._show_details()
        workflow.upsert_search_attributes([temporal.STATUS_ATTRIBUTE.value_set(turn.status)])
        if turn.messages_of_next_turn or self._messages_wait:
            following = turn.next_request(
                self._next_turn_id or str(workflow.uuid4()), named_by_rows=self._rows_name_next
            )
            workflow.continue_as_new(
                following,
                memo={temporal.TURN_ID_MEMO: following.turn_id},
                search_attributes=temporal.search_attributes_of(following),
                # A turn stays on the worker build that it began on; the next turn begins on the current one.
                initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
            )
        if turn.status is TurnStatus.FAILED:
            raise ApplicationError(turn.error or "The turn failed.", type=TURN_FAILED, non_retryable=True)
        if turn.status is TurnStatus.CANCELLED:
            raise asyncio.CancelledError("stopped")
        return TurnResult(
            turn_id=turn.request.turn_id,
            status=turn.status,
            rounds=turn.state.round,
            usage=turn.state.usage,
            error=turn.error,
        )

    def _show_details(self) -> None:
        workflow.set_current_details(self._turn.details())


@workflow.defn(name=temporal.TURN_WORKFLOW)
class TurnWorkflow(TurnLoop):
    """A turn; its workflow id names the session, so a session has at most one turn at a time."""

    @workflow.run
    async def run(self, request: TurnInput) -> TurnResult:  # noqa: ARG002  # `__init__` takes it, before any signal
        return await self._run()


@workflow.defn(name=temporal.SUB_SESSION_WORKFLOW)
class SubSessionWorkflow(TurnLoop):
    """A turn of a sub-session that its parent's turn started: the same loop, shown as a child in the Web UI.

    Its workflow id names the sub-session, so a person who writes to the sub-session reaches this very turn.
    """

    @workflow.run
    async def run(self, request: TurnInput) -> TurnResult:  # noqa: ARG002  # `__init__` takes it, before any signal
        return await self._run()
