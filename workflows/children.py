"""Delegation: sub-sessions as child workflows, waited for by timers, never by a blocked worker slot.

A child is abandoned by its parent's end (`ParentClosePolicy.ABANDON`): a sub-session outlives the turn that started it,
and a later turn polls it. What Stop does to children is decided here, not by the policy.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError, is_cancelled_exception
from temporalio.workflow import ChildWorkflowCancellationType, ChildWorkflowHandle, ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.sub_sessions import SubSessionActivities
    from copilot import attributes
    from copilot.contracts import (
        SUB_STATES,
        FollowUp,
        LookAtSubSession,
        PreparedSubSession,
        PrepareSubSession,
        ReportSubSession,
        SubSessionEnded,
        SubSessionRecord,
        SubSessionSeen,
        SubSessionState,
        ToolCall,
        ToolOutcome,
        TurnInput,
        TurnResult,
    )
    from copilot.tools.flow import GetSubSessionResult, RunSubSession
    from workflows import policies
    from workflows.state import TurnBoard

ChildHandle = ChildWorkflowHandle[object, TurnResult]
CHILD = "SubSessionWorkflow"  # by name: its class imports the loop, and the loop imports this module
START_TRIES = 5
STOP_WAIT_S = 8.0


class ToolRefusalError(Exception):
    """A sub-session tool call that cannot be done; the text tells the model what to do instead."""


class Children:
    """The sub-sessions of a turn."""

    def __init__(self, board: TurnBoard) -> None:
        self._board = board
        self._handles: dict[str, ChildHandle] = {}
        self._starting = 0

    async def run_sub_session(self, call: ToolCall, given: RunSubSession) -> ToolOutcome:
        """Start (or go on in) a sub-session, wait as long as asked, store what there is to say.

        Raises:
            ToolRefusalError: nothing was started.
        """
        started_at = workflow.now()
        self._refuse_loops(given)
        self._starting += 1
        try:
            prepared = await self._prepare(call)
            queued = await self._deliver(prepared, given)
        finally:
            self._starting -= 1
        sub_id = prepared.sub_session_id
        interrupted = await self._wait(sub_id, given.wait_for_result)
        return await self._report(call, sub_id, started_at, queued=queued, interrupted=interrupted)

    async def get_result(self, call: ToolCall, given: GetSubSessionResult) -> ToolOutcome:
        """Poll, wait for, or stop a sub-session of this or an earlier turn.

        Raises:
            ToolRefusalError: there is no such sub-session.
        """
        board, started_at, sub_id = self._board, workflow.now(), given.sub_session_id
        look = LookAtSubSession(turn=board.ref, scope=board.scope, sub_session_id=sub_id, cancel=given.cancel)
        seen = await workflow.execute_activity_method(
            SubSessionActivities.look_at_sub_session,
            look,
            summary=f"{'stop' if given.cancel else 'look at'} {sub_id}",
            **policies.storing(board.request.limits),
        )
        if seen.error:
            raise ToolRefusalError(seen.error)
        if sub_id not in board.sub_sessions or (_runs(seen) and not _runs(board.sub_sessions[sub_id])):
            self._track(sub_id, seen.turn_id, "", detached=True)
        interrupted = False
        if _runs(seen):
            interrupted = await self._wait(sub_id, STOP_WAIT_S if given.cancel else given.wait_if_running)
        else:
            board.child_ended(SubSessionEnded(sub_session_id=sub_id, turn_id=seen.turn_id, status=seen.status))
        return await self._report(
            call,
            sub_id,
            started_at,
            interrupted=interrupted,
            was_cancelled=given.cancel and seen.was_running,
            include_progress=given.include_progress,
        )

    async def stop(self) -> None:
        """Stop was pressed on this turn: its children stop too, except those that were started to go on."""
        board = self._board
        stopped = [r.sub_session_id for r in board.sub_sessions.values() if _runs(r) and not r.detached]
        for sub_id in stopped:
            await self._cancel(sub_id)
        await _until(lambda: all(self._ended(sub_id) for sub_id in stopped), STOP_WAIT_S)

    def _refuse_loops(self, given: RunSubSession) -> None:
        board, limits = self._board, self._board.request.limits
        scope = board.request.scope
        if not given.prompt.strip():
            raise ToolRefusalError("run_sub_session: the prompt is empty; say what the sub-session is to do.")
        if given.sub_session_id and given.sub_session_id in (*scope.ancestors, board.request.session_id):
            raise ToolRefusalError(
                "run_sub_session: a session cannot wait for itself or for one above it; do the work here, or start a "
                "new sub-session."
            )
        if limits.max_depth and scope.depth >= limits.max_depth:
            raise ToolRefusalError(
                f"run_sub_session: this session is {scope.depth} levels deep and {limits.max_depth} are allowed; do "
                "the work here."
            )
        if limits.max_children and board.children_running + self._starting >= limits.max_children:
            raise ToolRefusalError(
                f"run_sub_session: {limits.max_children} sub-sessions are running already; wait for one of them with "
                "get_sub_session_result."
            )

    async def _prepare(self, call: ToolCall) -> PreparedSubSession:
        board = self._board
        prepared: PreparedSubSession = await workflow.execute_activity_method(
            SubSessionActivities.prepare_sub_session,
            PrepareSubSession(
                turn=board.ref,
                round=board.state.round,
                tool_call_id=call.tool_call_id,
                arguments=call.arguments or "{}",
                scope=board.scope,
            ),
            summary="prepare sub-session",
            **policies.storing(board.request.limits),
        )
        board.note_published(prepared.published)
        if prepared.error:
            raise ToolRefusalError(prepared.error)
        return prepared

    async def _deliver(self, prepared: PreparedSubSession, given: RunSubSession) -> bool:
        """Start the child, or hand the message to the turn that the sub-session is in; whether it was the latter."""
        sub_id = prepared.sub_session_id
        message = FollowUp(message_id=prepared.message_id, received_at=workflow.now())
        for _ in range(START_TRIES):
            if await self._start(prepared, message, detached=given.detached):
                return False
            try:
                external = workflow.get_external_workflow_handle(f"turn:{sub_id}")
                await external.signal("follow_up", message)
            except FailureError as error:
                if is_cancelled_exception(error):
                    raise
                continue  # its turn ended just now, so the next start will do
            if sub_id not in self._board.sub_sessions or not _runs(self._board.sub_sessions[sub_id]):
                self._track(sub_id, "", prepared.task, detached=given.detached)
            return True
        raise ToolRefusalError("run_sub_session: the sub-session could not be reached; try again.")

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
                search_attributes=attributes.running(request),
                static_summary=f"sub-session · {prepared.task}",
                static_details=f"Session `{sub_id}`, delegated by session `{parent.session_id}`.",
            )
        except WorkflowAlreadyStartedError:
            return False
        self._handles[sub_id] = handle
        self._track(sub_id, request.turn_id, prepared.task, detached=detached)
        return True

    def _track(self, sub_id: str, turn_id: str, task: str, *, detached: bool) -> None:
        self._board.child_started(
            SubSessionRecord(
                sub_session_id=sub_id, turn_id=turn_id, task=task, detached=detached, started_at=workflow.now()
            )
        )

    async def _wait(self, sub_id: str, seconds: float) -> bool:
        """Wait for a sub-session's end; whether a message to this turn cut the wait short."""
        board = self._board
        longest = min(max(seconds, 0.0), board.request.limits.max_tool_wait)
        if longest > 0:
            await _until(lambda: self._ended(sub_id) or bool(board.inbox), longest, f"wait for {sub_id}")
        return not self._ended(sub_id) and bool(board.inbox)

    def _ended(self, sub_id: str) -> bool:
        """Whether a sub-session has ended, by its own word or, when it died without one, by its child handle's."""
        board, handle = self._board, self._handles.get(sub_id)
        if sub_id not in board.endings and handle is not None and handle.done():
            board.child_ended(_ending(board.sub_sessions[sub_id], handle))
        return sub_id in board.endings

    async def _cancel(self, sub_id: str) -> None:
        try:
            await workflow.get_external_workflow_handle(f"turn:{sub_id}").cancel()
        except FailureError:
            workflow.logger.info("sub-session %s has ended before it could be stopped", sub_id)

    async def _report(
        self,
        call: ToolCall,
        sub_id: str,
        started_at: datetime,
        *,
        queued: bool = False,
        interrupted: bool = False,
        was_cancelled: bool = False,
        include_progress: bool = False,
    ) -> ToolOutcome:
        board = self._board
        record = board.sub_sessions[sub_id]
        return await workflow.execute_activity_method(
            SubSessionActivities.report_sub_session,
            ReportSubSession(
                turn=board.ref,
                round=board.state.round,
                tool_call_id=call.tool_call_id,
                name=call.name,
                sub_session_id=sub_id,
                sub_turn_id=record.turn_id,
                status=record.status,
                queued=queued,
                interrupted=interrupted,
                was_cancelled=was_cancelled,
                elapsed_seconds=(workflow.now() - started_at).total_seconds(),
                include_progress=include_progress,
            ),
            summary=f"result · {call.name} · {record.status}",
            **policies.storing(board.request.limits),
        )


def _runs(record: SubSessionRecord | SubSessionSeen) -> bool:
    return record.status is SubSessionState.RUNNING


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


async def _until(condition: Callable[[], bool], seconds: float, summary: str = "wait") -> None:
    """Wait for a condition, at most `seconds`; running out of time is no error."""
    with suppress(TimeoutError):
        await workflow.wait_condition(condition, timeout=timedelta(seconds=seconds), timeout_summary=summary)
