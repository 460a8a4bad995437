"""Delegation: the sub-session tools, by child workflows and timers. No worker slot is held while a turn waits.

A child workflow is abandoned by its parent's end (`ParentClosePolicy.ABANDON`): a sub-session outlives the turn that
started it, and a later turn polls it. What Stop does to sub-sessions is decided in `SubSessionTools.stop`.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from enum import Enum, auto

from temporalio import workflow
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError, is_cancelled_exception
from temporalio.workflow import ChildWorkflowCancellationType, ChildWorkflowHandle, ParentClosePolicy

with workflow.unsafe.imports_passed_through():
    from activities.sub_sessions import SubSessionActivities
    from longhaul import temporal
    from longhaul.contracts import (
        SUB_STATES,
        Delegation,
        FollowUp,
        LookAtSubSession,
        PreparedSubSession,
        PrepareSubSession,
        ReportSubSession,
        StopSubSessions,
        SubSessionEnded,
        SubSessionRecord,
        SubSessionSeen,
        SubSessionState,
        ToolCall,
        ToolOutcome,
        TurnInput,
        TurnResult,
    )
    from longhaul.tools.workflow_tools import GetSubSessionResult
    from workflows import policies
    from workflows.state import RunningTurn

ChildHandle = ChildWorkflowHandle[object, TurnResult]
START_TRIES = 5
STOP_WAIT_S = 8.0
# A turn that was stopped before this was known cancels its sub-sessions itself.
STOP_MARKS_SUB_SESSIONS = "stop-marks-sub-sessions"
FIRST_LOOK_S, MAX_LOOK_PAUSE_S = 2.0, 30.0


class ToolRefusalError(Exception):
    """A sub-session tool call that cannot be done; the text tells the model what to do instead."""


class Delivery(Enum):
    """What happened to the prompt of `run_sub_session`."""

    STARTED = auto()
    QUEUED = auto()


class SubSessionTools:
    """The tools `run_sub_session` and `get_sub_session_result` of a turn."""

    def __init__(self, turn: RunningTurn) -> None:
        self._turn = turn
        self._workflows = SubSessionWorkflows(turn)
        # Sub-sessions that are not direct children of this session: they report their end to another session.
        self._indirect: set[str] = set()
        self._starting = 0

    async def run(self, call: ToolCall, delegation: Delegation) -> ToolOutcome:
        """Start a sub-session (or continue one), wait as long as asked, store its result or a handle.

        Raises:
            ToolRefusalError: nothing was started.
        """
        started_at = workflow.now()
        self._refuse(delegation)
        self._starting += 1
        # Shielded: a Stop must not come between the sub-session's row and its start. `stop` waits for it instead.
        prepared, delivery = await asyncio.shield(asyncio.create_task(self._begin(call, delegation)))
        sub_id, queued = prepared.sub_session_id, delivery is Delivery.QUEUED
        message_id = prepared.message_id if queued else ""
        interrupted = await self._wait(sub_id, delegation.wait_for_result, message_id)
        return await self._report(call, sub_id, started_at, queued=queued, interrupted=interrupted)

    async def get_result(self, call: ToolCall, arguments: GetSubSessionResult) -> ToolOutcome:
        """Poll, wait for, or stop a sub-session of this or an earlier turn.

        Raises:
            ToolRefusalError: there is no such sub-session.
        """
        started_at, sub_id = workflow.now(), arguments.sub_session_id
        seen = await self._look(sub_id, cancel=arguments.cancel)
        if seen.error:
            raise ToolRefusalError(seen.error)
        self._workflows.record_look(sub_id, seen)
        interrupted = False
        if seen.status is SubSessionState.RUNNING:
            interrupted = await self._wait(sub_id, STOP_WAIT_S if arguments.cancel else arguments.wait_if_running)
        return await self._report(
            call,
            sub_id,
            started_at,
            interrupted=interrupted,
            cancel=arguments.cancel,
            include_progress=arguments.include_progress,
        )

    async def stop(self) -> None:
        """Stop was pressed on this turn: stop its sub-sessions too, except the detached ones."""
        await self.settle()
        workflows = self._workflows
        sub_ids = [record.sub_session_id for record in workflows.running() if not record.detached]
        if not sub_ids:
            return
        if workflow.patched(STOP_MARKS_SUB_SESSIONS):
            await self._stop(sub_ids)
        else:  # Before, messages that a person sent to a sub-session right after the Stop were stored unanswered.
            await workflows.cancel(sub_ids)
        await wait_until(lambda: all(map(workflows.has_ended, sub_ids)), STOP_WAIT_S, "sub-sessions stop")

    async def _stop(self, sub_ids: list[str]) -> None:
        turn = self._turn
        await workflow.execute_activity_method(
            SubSessionActivities.stop_sub_sessions,
            StopSubSessions(turn=turn.ref, sub_session_ids=sub_ids),
            **policies.storing(turn.request.limits, f"stop sub-sessions ({len(sub_ids)})"),
        )

    async def settle(self) -> None:
        """Wait until sub-sessions that are being started have started: none keeps a prompt that no turn takes."""
        await wait_until(lambda: not self._starting, STOP_WAIT_S, "sub-sessions start")

    def _refuse(self, delegation: Delegation) -> None:
        limits, scope = self._turn.request.limits, self._turn.request.scope
        sub_id = delegation.sub_session_id
        if sub_id and sub_id in (*scope.ancestors, self._turn.request.session_id):
            raise ToolRefusalError(
                "run_sub_session: a session cannot wait for itself or for one above it; do the work here, or start a "
                "new sub-session."
            )
        if limits.max_depth and scope.depth >= limits.max_depth:
            raise ToolRefusalError(
                f"run_sub_session: this session is {scope.depth} levels deep and {limits.max_depth} are allowed; do "
                "the work here."
            )
        adds_one = not self._workflows.is_running(sub_id)
        if adds_one and 0 < limits.max_children <= len(self._workflows.running()) + self._starting:
            raise ToolRefusalError(
                f"run_sub_session: {limits.max_children} sub-sessions are running already; wait for one of them with "
                "get_sub_session_result."
            )

    async def _begin(self, call: ToolCall, delegation: Delegation) -> tuple[PreparedSubSession, Delivery]:
        try:
            prepared = await self._prepare(call)
            delivery = await self._workflows.deliver(prepared, detached=delegation.detached)
        finally:
            self._starting -= 1
        if prepared.scope.ancestors[-1:] != (self._turn.request.session_id,):
            self._indirect.add(prepared.sub_session_id)
        return prepared, delivery

    async def _prepare(self, call: ToolCall) -> PreparedSubSession:
        turn = self._turn
        prepared: PreparedSubSession = await workflow.execute_activity_method(
            SubSessionActivities.prepare_sub_session,
            PrepareSubSession(
                turn=turn.ref,
                round=turn.state.round,
                tool_call_id=call.tool_call_id,
                scope=turn.scope,
                cost_limits=turn.request.limits.cost,
            ),
            **policies.storing(turn.request.limits, "prepare sub-session"),
        )
        turn.update_published(prepared.published)
        if prepared.error:
            raise ToolRefusalError(prepared.error)
        return prepared

    async def _wait(self, sub_id: str, seconds: float, message_id: str = "") -> bool:
        """Wait for a sub-session's end; returns whether a message to this turn cut the wait short.

        With `message_id`, wait for the end of the turn that takes this message: the one that runs now may end before
        it takes it. An indirect sub-session reports its end to another session, so it is looked at from time to time.
        """
        turn, workflows = self._turn, self._workflows
        wait_seconds = min(max(seconds, 0.0), turn.request.limits.max_tool_wait)
        deadline, pause = workflow.now() + timedelta(seconds=wait_seconds), FIRST_LOOK_S
        while (left := (deadline - workflow.now()).total_seconds()) > 0:
            if turn.stop_requested or turn.out_of_time:
                return False  # it arrived as the look below was about to end; the loop obeys it
            timeout = min(left, pause) if sub_id in self._indirect else left
            await wait_until(
                lambda: workflows.has_ended(sub_id) or bool(turn.waiting_messages), timeout, f"wait for {label(sub_id)}"
            )
            ended = workflows.has_ended(sub_id)
            if not ended and turn.waiting_messages:
                return True
            if ended and not message_id:
                return False
            if message_id or not workflows.has_handle(sub_id):
                await self._look_again(sub_id, message_id)
                if workflows.has_ended(sub_id):
                    return False
            pause = min(pause * 2, MAX_LOOK_PAUSE_S)
        return False

    async def _look(self, sub_id: str, *, cancel: bool = False, message_id: str = "") -> SubSessionSeen:
        turn = self._turn
        seen: SubSessionSeen = await workflow.execute_activity_method(
            SubSessionActivities.look_at_sub_session,
            LookAtSubSession(
                turn=turn.ref, scope=turn.scope, sub_session_id=sub_id, cancel=cancel, message_id=message_id
            ),
            **policies.storing(turn.request.limits, f"{'stop' if cancel else 'look at'} {label(sub_id)}"),
        )
        if seen.far:
            self._indirect.add(sub_id)
        return seen

    async def _look_again(self, sub_id: str, message_id: str) -> None:
        seen = await self._look(sub_id, message_id=message_id)
        if not seen.error:
            self._workflows.record_look(sub_id, seen)
        else:  # deleted meanwhile
            turn_id = self._turn.sub_sessions[sub_id].turn_id
            self._turn.sub_session_ended(
                SubSessionEnded(sub_session_id=sub_id, turn_id=turn_id, status=SubSessionState.ERROR)
            )

    async def _report(
        self,
        call: ToolCall,
        sub_id: str,
        started_at: datetime,
        *,
        queued: bool = False,
        interrupted: bool = False,
        cancel: bool = False,
        include_progress: bool = False,
    ) -> ToolOutcome:
        turn = self._turn
        record = turn.sub_sessions[sub_id]
        return await workflow.execute_activity_method(
            SubSessionActivities.report_sub_session,
            ReportSubSession(
                turn=turn.ref,
                round=turn.state.round,
                tool_call_id=call.tool_call_id,
                name=call.name,
                sub_session_id=sub_id,
                sub_turn_id=record.turn_id,
                status=record.status,
                queued=queued,
                interrupted=interrupted,
                cancel=cancel,
                elapsed_seconds=(workflow.now() - started_at).total_seconds(),
                include_progress=include_progress,
            ),
            **policies.storing(turn.request.limits, f"result · {call.name} · {record.status}"),
        )


class SubSessionWorkflows:
    """The workflows of a turn's sub-sessions: start them, signal them, cancel them, know which have ended."""

    def __init__(self, turn: RunningTurn) -> None:
        self._turn = turn
        self._handles: dict[str, ChildHandle] = {}

    async def deliver(self, prepared: PreparedSubSession, *, detached: bool) -> Delivery:
        """Start the sub-session's turn with the message, or signal the message to the turn that runs.

        Raises:
            ToolRefusalError: neither succeeded.
        """
        sub_id = prepared.sub_session_id
        parent = self._turn.request
        message = FollowUp(
            message_id=prepared.message_id,
            received_at=workflow.now(),
            turn_id=prepared.turn_id,
            model=self._turn.model,
            mode=self._turn.mode,
            tier=self._turn.tier,
            effort=self._turn.effort,
            scope=prepared.scope,
            parent_turn_id=parent.turn_id,
        )
        for _ in range(START_TRIES):
            if await self._start(prepared, message, detached=detached):
                return Delivery.STARTED
            try:
                running = workflow.get_external_workflow_handle(temporal.workflow_id(sub_id))
                await running.signal(temporal.FOLLOW_UP_SIGNAL, message)
            except FailureError as error:
                if is_cancelled_exception(error):
                    raise
                continue  # its turn has just ended, so the next start succeeds
            if not self.is_running(sub_id):
                self._record_start(sub_id, "", detached=detached)
            return Delivery.QUEUED
        raise ToolRefusalError("run_sub_session: the sub-session could not be reached; try again.")

    async def _start(self, prepared: PreparedSubSession, message: FollowUp, *, detached: bool) -> bool:
        sub_id, parent = prepared.sub_session_id, self._turn.request
        request = TurnInput(
            session_id=sub_id,
            user_id=parent.user_id,
            turn_id=prepared.run_turn_id or str(workflow.uuid4()),
            model=self._turn.model,
            mode=self._turn.mode,
            tier=self._turn.tier,
            effort=self._turn.effort,
            limits=parent.limits,
            scope=prepared.scope,
            inbox=[message],
            parent_turn_id=parent.turn_id,
            rows_decide=bool(prepared.run_turn_id),
        )
        try:
            handle = await workflow.start_child_workflow(
                temporal.SUB_SESSION_WORKFLOW,
                request,
                id=temporal.workflow_id(sub_id),
                result_type=TurnResult,
                task_timeout=temporal.WORKFLOW_TASK_MAX,
                parent_close_policy=ParentClosePolicy.ABANDON,
                cancellation_type=ChildWorkflowCancellationType.ABANDON,
                memo={temporal.TURN_ID_MEMO: request.turn_id},
                search_attributes=temporal.search_attributes_of(request),
                static_summary=f"{label(sub_id)} · {request.model}",
                static_details=f"Session `{sub_id}`, delegated by session `{parent.session_id}`.",
            )
        except WorkflowAlreadyStartedError:
            return False
        self._record_start(sub_id, request.turn_id, detached=detached)
        self._handles[sub_id] = handle
        return True

    def _record_start(self, sub_id: str, turn_id: str, *, detached: bool) -> None:
        handle = self._handles.get(sub_id)
        if handle is not None and handle.done():
            del self._handles[sub_id]  # the handle of an earlier turn
        self._turn.sub_session_started(
            SubSessionRecord(sub_session_id=sub_id, turn_id=turn_id, detached=detached, started_at=workflow.now())
        )

    def record_look(self, sub_id: str, seen: SubSessionSeen) -> None:
        """Record what an activity saw of a sub-session."""
        record = self._turn.sub_sessions.get(sub_id)
        if record is None or record.turn_id != seen.turn_id:
            self._record_start(sub_id, seen.turn_id, detached=seen.detached)
        if seen.status is not SubSessionState.RUNNING:
            self._turn.sub_session_ended(
                SubSessionEnded(sub_session_id=sub_id, turn_id=seen.turn_id, status=seen.status)
            )

    def is_running(self, sub_id: str) -> bool:
        """Whether a sub-session is known to run."""
        record = self._turn.sub_sessions.get(sub_id)
        return record is not None and record.status is SubSessionState.RUNNING and not self.has_ended(sub_id)

    def running(self) -> list[SubSessionRecord]:
        return [record for sub_id, record in self._turn.sub_sessions.items() if self.is_running(sub_id)]

    def has_handle(self, sub_id: str) -> bool:
        """Whether Temporal itself reports the child's end to this run, however the child ends."""
        return sub_id in self._handles

    def has_ended(self, sub_id: str) -> bool:
        """Whether a sub-session has ended, by its own signal or, when it died before that, by its child handle."""
        turn, handle = self._turn, self._handles.get(sub_id)
        if sub_id not in turn.sub_session_ends and handle is not None and handle.done():
            turn.sub_session_ended(_end_of(turn.sub_sessions[sub_id], handle))
        return sub_id in turn.sub_session_ends

    async def cancel(self, sub_ids: Iterable[str]) -> None:
        """Ask these sub-sessions to stop."""
        await asyncio.gather(*map(self._cancel, sub_ids))

    async def _cancel(self, sub_id: str) -> None:
        try:
            await workflow.get_external_workflow_handle(temporal.workflow_id(sub_id)).cancel()
        except FailureError:
            workflow.logger.info("sub-session %s has ended before it could be stopped", sub_id)


def _end_of(record: SubSessionRecord, handle: ChildHandle) -> SubSessionEnded:
    """The end of a sub-session as its finished child handle reports it."""
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


def label(sub_id: str) -> str:
    """A sub-session as the Web UI shows it. Its task is text of people or models, and histories hold none."""
    return f"sub-session {sub_id[:8]}"


async def wait_until(condition: Callable[[], bool], seconds: float, summary: str) -> None:
    """Wait for a condition, at most `seconds`; reaching that limit is no error."""
    if condition():
        return
    with suppress(TimeoutError):
        await workflow.wait_condition(condition, timeout=timedelta(seconds=seconds), timeout_summary=summary)
