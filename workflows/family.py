"""The sub-sessions of a turn as Temporal sees them: child workflows that are started, reached, waited for and stopped.

A child is abandoned by its parent's end (`ParentClosePolicy.ABANDON`): a sub-session outlives the turn that started it,
and a later turn polls it. What Stop does to children is decided in `children.py`, not by the policy.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError, is_cancelled_exception
from temporalio.workflow import ChildWorkflowCancellationType, ChildWorkflowHandle, ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from longhaul import temporal
    from longhaul.contracts import (
        SUB_STATES,
        FollowUp,
        PreparedSubSession,
        SubSessionEnded,
        SubSessionRecord,
        SubSessionSeen,
        SubSessionState,
        TurnInput,
        TurnResult,
    )
    from workflows.state import TurnBoard

ChildHandle = ChildWorkflowHandle[object, TurnResult]
CHILD = "SubSessionWorkflow"  # by name: its class imports the loop, and the loop imports this module
START_TRIES = 5


class Family:
    """The children of a turn, and what is known of them."""

    def __init__(self, board: TurnBoard) -> None:
        self._board = board
        self._handles: dict[str, ChildHandle] = {}

    async def deliver(self, prepared: PreparedSubSession, *, detached: bool) -> bool | None:
        """Start the child, or hand the message to the turn that the sub-session is in.

        Returns:
            Whether it was the latter; None when it could not be reached at all.
        """
        sub_id = prepared.sub_session_id
        message = FollowUp(message_id=prepared.message_id, received_at=workflow.now())
        for _ in range(START_TRIES):
            if await self._start(prepared, message, detached=detached):
                return False
            try:
                await workflow.get_external_workflow_handle(f"turn:{sub_id}").signal("follow_up", message)
            except FailureError as error:
                if is_cancelled_exception(error):
                    raise
                continue  # its turn ended just now, so the next start will do
            if not self.runs(sub_id):
                self.track(sub_id, "", prepared.task, detached=detached)
            return True
        return None

    async def _start(self, prepared: PreparedSubSession, message: FollowUp, *, detached: bool) -> bool:
        sub_id, parent = prepared.sub_session_id, self._board.request
        request = TurnInput(
            session_id=sub_id,
            user_id=parent.user_id,
            turn_id=str(workflow.uuid4()),
            model=parent.model,
            mode=parent.mode,
            tier=parent.tier,
            limits=parent.limits,
            scope=prepared.scope,
            inbox=[message],
            parent_turn_id=parent.turn_id,
        )
        try:
            handle = await workflow.start_child_workflow(
                CHILD,
                request,
                id=f"turn:{sub_id}",
                result_type=TurnResult,
                parent_close_policy=ParentClosePolicy.ABANDON,
                cancellation_type=ChildWorkflowCancellationType.ABANDON,
                memo={"turn_id": request.turn_id},
                search_attributes=temporal.search_attributes_of(request),
                static_summary=f"sub-session · {prepared.task}",
                static_details=f"Session `{sub_id}`, delegated by session `{parent.session_id}`.",
            )
        except WorkflowAlreadyStartedError:
            return False
        self.track(sub_id, request.turn_id, prepared.task, detached=detached)
        self._handles[sub_id] = handle
        return True

    def track(self, sub_id: str, turn_id: str, task: str, *, detached: bool) -> None:
        """Note a turn of a sub-session as running."""
        known = self._board.sub_sessions.get(sub_id)
        handle = self._handles.get(sub_id)
        if handle is not None and handle.done():
            del self._handles[sub_id]  # the handle of an earlier turn
        self._board.child_started(
            SubSessionRecord(
                sub_session_id=sub_id,
                turn_id=turn_id,
                task=task or (known.task if known is not None else ""),
                detached=detached,
                started_at=workflow.now(),
            )
        )

    def saw(self, sub_id: str, seen: SubSessionSeen) -> None:
        """Note what a look at a sub-session showed."""
        record = self._board.sub_sessions.get(sub_id)
        if record is None or record.turn_id != seen.turn_id:
            self.track(sub_id, seen.turn_id, seen.task, detached=seen.detached)
        if seen.status is not SubSessionState.RUNNING:
            ended = SubSessionEnded(sub_session_id=sub_id, turn_id=seen.turn_id, status=seen.status)
            self._board.child_ended(ended)

    def runs(self, sub_id: str) -> bool:
        """Whether a sub-session is known to run."""
        record = self._board.sub_sessions.get(sub_id)
        return record is not None and record.status is SubSessionState.RUNNING and not self.ended(sub_id)

    def running(self) -> list[SubSessionRecord]:
        return [record for sub_id, record in self._board.sub_sessions.items() if self.runs(sub_id)]

    def told(self, sub_id: str) -> bool:
        """Whether Temporal itself tells this run of the child's end, whatever happens to the child."""
        return sub_id in self._handles

    def ended(self, sub_id: str) -> bool:
        """Whether a sub-session has ended, by its own word or, when it died without one, by its child handle's."""
        board, handle = self._board, self._handles.get(sub_id)
        if sub_id not in board.endings and handle is not None and handle.done():
            board.child_ended(_ending(board.sub_sessions[sub_id], handle))
        return sub_id in board.endings

    async def stop(self, sub_ids: Iterable[str]) -> None:
        """Ask these sub-sessions to stop."""
        await asyncio.gather(*(self._cancel(sub_id) for sub_id in sub_ids))

    async def _cancel(self, sub_id: str) -> None:
        try:
            await workflow.get_external_workflow_handle(f"turn:{sub_id}").cancel()
        except FailureError:
            workflow.logger.info("sub-session %s has ended before it could be stopped", sub_id)


def _ending(record: SubSessionRecord, handle: "ChildHandle") -> SubSessionEnded:
    """What a finished child handle says."""
    if handle.cancelled():
        status = SubSessionState.CANCELLED
    elif (error := handle.exception()) is not None:
        status = SubSessionState.CANCELLED if is_cancelled_exception(error) else SubSessionState.ERROR
    else:
        result = handle.result()
        return SubSessionEnded(
            sub_session_id=record.sub_session_id, turn_id=result.turn_id, status=SUB_STATES[result.status]
        )
    return SubSessionEnded(sub_session_id=record.sub_session_id, turn_id=record.turn_id, status=status)


async def until(condition: Callable[[], bool], seconds: float, summary: str) -> None:
    """Wait for a condition, at most `seconds`; running out of time is no error."""
    if condition():
        return
    with suppress(TimeoutError):
        await workflow.wait_condition(condition, timeout=timedelta(seconds=seconds), timeout_summary=summary)
