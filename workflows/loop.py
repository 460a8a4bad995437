"""The loop of a turn, shared by both turn workflows.

Three rules keep messages safe. Signal handlers only append to the inbox. Between the last look at an empty inbox and
the return there is no `await`, so Temporal refuses to close a run that an unseen signal has reached. And a message that
comes when the turn has ended already, but its run has not, begins the next turn under the same workflow id.

Stores are never stopped half-way: a Stop that comes meanwhile takes effect behind them, else messages that were taken
from the inbox would be nowhere, and a turn could end without a word.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.model import ModelActivities
    from activities.turns import TurnActivities
    from longhaul import temporal
    from longhaul.contracts import (
        NEXT_TURN,
        SUB_STATES,
        CallModel,
        CloseTurn,
        ModelAnswer,
        OpenTurn,
        SubSessionEnded,
        TakeInbox,
        TurnInput,
        TurnResult,
        TurnStatus,
    )
    from longhaul.errors import BUDGET_REACHED, TURN_FAILED
    from workflows import policies
    from workflows.failures import cause
    from workflows.state import TurnBoard
    from workflows.tools import ToolRunner

T = TypeVar("T")
TIME_IS_UP = "The time budget is used up."


class TurnLoop:
    """Runs one turn from its first message to its end."""

    def __init__(self, request: TurnInput) -> None:
        self.board = TurnBoard(request)
        self._tools = ToolRunner(self.board)
        self._round_limit_reached = False
        self._next_turn_id = ""
        self._stopped_while_storing = False

    async def run(self) -> TurnResult:
        """The whole turn.

        Raises:
            ApplicationError: the turn failed (after everything about it has been stored).
            asyncio.CancelledError: it was stopped (likewise).
        """
        board = self.board
        try:
            answered = await self._within_budget()
            board.status = TurnStatus.COMPLETED
            if not answered:
                return self._end()  # a late duplicate: there was nothing to answer, and there is nothing to close
        except (asyncio.CancelledError, FailureError) as error:
            stopped = is_cancelled_exception(error) or workflow.cancellation_reason() is not None
            board.status = TurnStatus.CANCELLED if stopped else TurnStatus.FAILED
            board.error = None if stopped else cause(error)
        except Exception as error:  # noqa: BLE001  # stored and shown, never swallowed
            # A bug of ours must end the turn visibly, with a row, and not as a workflow task retried for ever.
            workflow.logger.exception("turn failed by a defect")
            board.status = TurnStatus.FAILED
            board.error = f"The turn failed by a defect in Longhaul: {type(error).__name__}: {error}"
        await self._close()
        return self._end()

    async def _within_budget(self) -> bool:
        """Open the turn and work until it is done, or until its time budget ends it."""
        board = self.board
        if not board.state.opened and not await self._open():
            return False
        self._heed_stop()
        budget = board.time_budget
        ends = budget.deadline if budget is not None else None
        left = (ends - workflow.now()).total_seconds() if ends is not None else None
        try:
            async with asyncio.timeout(left) as limit:
                await self._work()
        except TimeoutError:
            raise self._out_of_time() from None
        except FailureError:
            if limit.expired():
                raise self._out_of_time() from None
            raise
        return True

    async def _work(self) -> None:
        board = self.board
        while True:
            if board.state.round >= board.request.limits.max_rounds:
                self._round_limit_reached = True
                return
            board.update(round=board.state.round + 1)
            answer = await self._call_model()
            if answer.tool_calls:
                board.update(step_open=True)
                self._heed_stop()
                await self._tools.run(answer)
            took = await self._take_inbox()
            if not answer.tool_calls and not took:
                return
            self._heed_stop()
            self._continue_as_new_if_long()

    def _heed_stop(self) -> None:
        """A cancel that reaches an activity as it ends is raised nowhere; nor is the end of the time budget."""
        if self.board.stop_requested:
            raise asyncio.CancelledError("stopped")
        if self.board.out_of_time:
            raise self._out_of_time()

    def _out_of_time(self) -> ApplicationError:
        budget = self.board.time_budget
        text = budget.time_used_up(self.board.request.session_id) if budget is not None else TIME_IS_UP
        return ApplicationError(text, type=BUDGET_REACHED)

    async def _open(self) -> bool:
        board, request = self.board, self.board.request
        opened = await self._stored(
            workflow.execute_local_activity_method(
                TurnActivities.open_turn,
                OpenTurn(
                    turn=board.ref,
                    message_ids=board.take(),
                    model=request.model,
                    mode=request.mode,
                    tier=request.tier,
                    scope=request.scope,
                    started_at=board.state.started_at,
                ),
                summary="open turn",
                **policies.placing(request.limits),
            )
        )
        board.update(opened=True, title_wanted=opened.title_wanted, budgets=opened.budgets)
        board.note_published(opened.published)
        self._stop_if_asked()
        return bool(opened.taken)

    async def _call_model(self) -> ModelAnswer:
        board, request = self.board, self.board.request
        self._show()
        answer: ModelAnswer = await workflow.execute_activity_method(
            ModelActivities.call_model,
            CallModel(
                turn=board.ref,
                round=board.state.round,
                model=request.model,
                mode=request.mode,
                scope=board.scope,
                title_wanted=board.state.title_wanted,
                step_open=board.state.step_open,
            ),
            summary=f"round {board.state.round} · {request.model}",
            **policies.calling_model(request.limits),
        )
        board.note_published(answer.published)
        board.finish_reason = answer.finish_reason
        board.update(usage=board.state.usage + answer.usage, answered_with_text=answer.has_text, step_open=False)
        self._show()
        return answer

    async def _take_inbox(self) -> bool:
        board = self.board
        if not (ids := board.take()):
            return False
        noun = "follow-up" if len(ids) == 1 else "follow-ups"
        taken = await self._stored(
            workflow.execute_local_activity_method(
                TurnActivities.take_inbox,
                TakeInbox(turn=board.ref, round=board.state.round, message_ids=ids),
                summary=f"take {len(ids)} {noun}",
                **policies.placing(board.request.limits),
            )
        )
        board.note_published(taken.published)
        self._stop_if_asked()
        return bool(taken.taken)

    async def _stored(self, storing: Coroutine[Any, Any, T]) -> T:
        """Wait for a store to end; a Stop or the end of a budget that comes meanwhile is obeyed by `_stop_if_asked`."""
        task = asyncio.create_task(storing)
        while True:
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled():
                    raise
                self._stopped_while_storing = True

    def _stop_if_asked(self) -> None:
        if self._stopped_while_storing:
            self._stopped_while_storing = False
            raise asyncio.CancelledError

    def _continue_as_new_if_long(self) -> None:
        """Go on in a fresh history, with the inbox; the turn keeps its id."""
        board = self.board
        most = board.request.limits.continue_as_new_events
        if workflow.info().is_continue_as_new_suggested() or 0 < most < workflow.info().get_current_history_length():
            board.update(sub_sessions=list(board.sub_sessions.values()))
            request = board.request.model_copy(update={"state": board.state, "inbox": list(board.inbox)})
            workflow.continue_as_new(request)

    async def _close(self) -> None:
        board, request = self.board, self.board.request
        if board.status is TurnStatus.CANCELLED:
            await self._tools.stop()
        else:
            await self._tools.settle()
        board.ended_at = workflow.now()
        board.tools_running.clear()
        # From here on a message is the next turn's. Whoever hands one in learns that turn's id from the memo, which is
        # committed before `close_turn` can begin.
        self._next_turn_id = str(workflow.uuid4())
        workflow.upsert_memo({NEXT_TURN: self._next_turn_id})
        stopped = board.status is TurnStatus.CANCELLED
        # Stop means: spend no more. What waits is kept as rows, for the next turn to see. A failed turn leaves its
        # waiting messages to the next turn, which begins at once (see `_end`).
        waiting = board.take() if stopped else []
        await self._stored(
            workflow.execute_activity_method(
                TurnActivities.close_turn,
                CloseTurn(
                    turn=board.ref,
                    progress=board.progress().model_copy(update={"inbox": []}),
                    answered_with_text=board.state.answered_with_text,
                    finish_reason=board.finish_reason,
                    round_limit_reached=self._round_limit_reached,
                    step_open=board.state.step_open,
                    waiting=waiting,
                    model=request.model,
                    mode=request.mode,
                    tier=request.tier,
                ),
                summary=f"close turn · {board.status}",
                **policies.storing(request.limits),
            )
        )
        await self._tell_parent()

    async def _tell_parent(self) -> None:
        """A session above may wait for this one, in this turn or a later one; nobody there is no error."""
        request = self.board.request
        if not request.scope.ancestors:
            return
        parent = workflow.get_external_workflow_handle(f"turn:{request.scope.ancestors[-1]}")
        ended = SubSessionEnded(
            sub_session_id=request.session_id, turn_id=request.turn_id, status=SUB_STATES[self.board.status]
        )
        try:
            await self._stored(parent.signal("sub_session_ended", ended))
        except FailureError:
            workflow.logger.info("no turn of the parent session runs")

    def _end(self) -> TurnResult:
        """Leave the run; nothing may be awaited from here on."""
        board = self.board
        board.closed = True
        self._show()
        workflow.upsert_search_attributes([temporal.STATUS_ATTRIBUTE.value_set(board.status)])
        if unseen := [f for f in board.inbox if f.message_id not in board.state.seen]:
            turn_id = self._next_turn_id or str(workflow.uuid4())
            following = board.request.model_copy(update={"turn_id": turn_id, "inbox": unseen, "state": None})
            workflow.continue_as_new(
                following,
                memo={"turn_id": turn_id},
                search_attributes=temporal.search_attributes_of(following),
            )
        if board.status is TurnStatus.FAILED:
            raise ApplicationError(board.error or "The turn failed.", type=TURN_FAILED, non_retryable=True)
        if board.status is TurnStatus.CANCELLED:
            raise asyncio.CancelledError("stopped")
        return self._result()

    def _result(self) -> TurnResult:
        board = self.board
        return TurnResult(
            turn_id=board.request.turn_id,
            status=board.status,
            rounds=board.state.round,
            usage=board.state.usage,
            error=board.error,
        )

    def _show(self) -> None:
        workflow.set_current_details(self.board.details())
