"""Delegation: what the sub-session tools do, by child workflows and timers, never by a blocked worker slot."""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.sub_sessions import SubSessionActivities
    from longhaul.contracts import (
        LookAtSubSession,
        PreparedSubSession,
        PrepareSubSession,
        ReportSubSession,
        SubSessionEnded,
        SubSessionSeen,
        SubSessionState,
        ToolCall,
        ToolOutcome,
    )
    from longhaul.tools.workflow_tools import GetSubSessionResult, RunSubSession
    from workflows import policies
    from workflows.family import Family, until
    from workflows.state import TurnBoard

STOP_WAIT_S = 8.0
LOOK_FIRST_S, LOOK_MAX_S = 2.0, 30.0
SUMMARY_CHARS = 60


class ToolRefusalError(Exception):
    """A sub-session tool call that cannot be done; the text tells the model what to do instead."""


class Children:
    """The sub-session tools of a turn."""

    def __init__(self, board: TurnBoard) -> None:
        self._board = board
        self._family = Family(board)
        self._far: set[str] = set()
        self._starting = 0

    async def run_sub_session(self, call: ToolCall, given: RunSubSession) -> ToolOutcome:
        """Start (or go on in) a sub-session, wait as long as asked, store what there is to say.

        Raises:
            ToolRefusalError: nothing was started.
        """
        started_at = workflow.now()
        self._refuse(given)
        self._starting += 1
        # Shielded: a Stop must not come between the sub-session's row and its start. `stop` waits for it instead.
        prepared, queued = await asyncio.shield(asyncio.create_task(self._begin(call, given)))
        sub_id = prepared.sub_session_id
        awaited = prepared.message_id if queued else ""
        interrupted = await self._wait(sub_id, given.wait_for_result, awaited)
        return await self._report(call, sub_id, started_at, queued=queued, interrupted=interrupted)

    async def get_result(self, call: ToolCall, given: GetSubSessionResult) -> ToolOutcome:
        """Poll, wait for, or stop a sub-session of this or an earlier turn.

        Raises:
            ToolRefusalError: there is no such sub-session.
        """
        started_at, sub_id = workflow.now(), given.sub_session_id
        seen = await self._look(sub_id, cancel=given.cancel)
        if seen.error:
            raise ToolRefusalError(seen.error)
        self._family.saw(sub_id, seen)
        interrupted = False
        if seen.status is SubSessionState.RUNNING:
            interrupted = await self._wait(sub_id, STOP_WAIT_S if given.cancel else given.wait_if_running)
        return await self._report(
            call,
            sub_id,
            started_at,
            interrupted=interrupted,
            cancel=given.cancel,
            was_cancelled=given.cancel and seen.was_running,
            include_progress=given.include_progress,
        )

    async def stop(self) -> None:
        """Stop was pressed on this turn: its children stop too, except those that were started to go on."""
        await self.settle()
        stopped = [record.sub_session_id for record in self._family.running() if not record.detached]
        await self._family.stop(stopped)
        await until(lambda: all(self._family.ended(sub_id) for sub_id in stopped), STOP_WAIT_S, "sub-sessions stop")

    async def settle(self) -> None:
        """Wait until what is being started has started: no sub-session is left with a prompt that nobody takes."""
        await until(lambda: not self._starting, STOP_WAIT_S, "sub-sessions start")

    def _refuse(self, given: RunSubSession) -> None:
        limits, scope = self._board.request.limits, self._board.request.scope
        if not given.prompt.strip():
            raise ToolRefusalError("run_sub_session: the prompt is empty; say what the sub-session is to do.")
        if given.sub_session_id and given.sub_session_id in (*scope.ancestors, self._board.request.session_id):
            raise ToolRefusalError(
                "run_sub_session: a session cannot wait for itself or for one above it; do the work here, or start a "
                "new sub-session."
            )
        if limits.max_depth and scope.depth >= limits.max_depth:
            raise ToolRefusalError(
                f"run_sub_session: this session is {scope.depth} levels deep and {limits.max_depth} are allowed; do "
                "the work here."
            )
        adds_one = not self._family.runs(given.sub_session_id)
        if adds_one and 0 < limits.max_children <= len(self._family.running()) + self._starting:
            raise ToolRefusalError(
                f"run_sub_session: {limits.max_children} sub-sessions are running already; wait for one of them with "
                "get_sub_session_result."
            )

    async def _begin(self, call: ToolCall, given: RunSubSession) -> tuple[PreparedSubSession, bool]:
        try:
            prepared = await self._prepare(call)
            queued = await self._family.deliver(prepared, detached=given.detached)
        finally:
            self._starting -= 1
        if queued is None:
            raise ToolRefusalError("run_sub_session: the sub-session could not be reached; try again.")
        if prepared.scope.ancestors[-1:] != (self._board.request.session_id,):
            self._far.add(prepared.sub_session_id)
        return prepared, queued

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

    async def _wait(self, sub_id: str, seconds: float, message_id: str = "") -> bool:
        """Wait for a sub-session's end; whether a message to this turn cut the wait short.

        With `message_id`, for the end of the turn that takes this message: the one that runs now may end before it
        comes to it. A sub-session that tells its end to another session (`_far`) is looked at from time to time.
        """
        board, family = self._board, self._family
        longest = min(max(seconds, 0.0), board.request.limits.max_tool_wait)
        deadline, pause = workflow.now() + timedelta(seconds=longest), LOOK_FIRST_S
        while (left := (deadline - workflow.now()).total_seconds()) > 0:
            if board.stop_requested or board.out_of_time:
                return False  # it came as the look below was about to end by itself; the loop heeds it
            most = min(left, pause) if sub_id in self._far else left
            await until(lambda: family.ended(sub_id) or bool(board.unseen), most, self._waiting_for(sub_id))
            ended = family.ended(sub_id)
            if not ended and board.unseen:
                return True
            if ended and not message_id:
                return False
            if message_id or not family.told(sub_id):
                await self._look_again(sub_id, message_id)
                if family.ended(sub_id):
                    return False
            pause = min(pause * 2, LOOK_MAX_S)
        return False

    def _waiting_for(self, sub_id: str) -> str:
        record = self._board.sub_sessions[sub_id]
        whom = record.task or sub_id
        room = SUMMARY_CHARS - len("wait for “”")
        return f"wait for “{whom if len(whom) <= room else whom[: room - 1] + '…'}”"

    async def _look(self, sub_id: str, *, cancel: bool = False, message_id: str = "") -> SubSessionSeen:
        board = self._board
        known = board.sub_sessions.get(sub_id)
        verb = "stop" if cancel else "look at"
        seen: SubSessionSeen = await workflow.execute_activity_method(
            SubSessionActivities.look_at_sub_session,
            LookAtSubSession(
                turn=board.ref, scope=board.scope, sub_session_id=sub_id, cancel=cancel, message_id=message_id
            ),
            summary=f"{verb} “{known.task}”"[:SUMMARY_CHARS] if known and known.task else f"{verb} a sub-session",
            **policies.storing(board.request.limits),
        )
        if seen.far:
            self._far.add(sub_id)
        return seen

    async def _look_again(self, sub_id: str, message_id: str) -> None:
        seen = await self._look(sub_id, message_id=message_id)
        if not seen.error:
            self._family.saw(sub_id, seen)
        else:  # deleted meanwhile
            turn_id = self._board.sub_sessions[sub_id].turn_id
            ended = SubSessionEnded(sub_session_id=sub_id, turn_id=turn_id, status=SubSessionState.ERROR)
            self._board.child_ended(ended)

    async def _report(
        self,
        call: ToolCall,
        sub_id: str,
        started_at: datetime,
        *,
        queued: bool = False,
        interrupted: bool = False,
        cancel: bool = False,
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
                cancel=cancel,
                was_cancelled=was_cancelled,
                elapsed_seconds=(workflow.now() - started_at).total_seconds(),
                include_progress=include_progress,
            ),
            summary=f"result · {call.name} · {record.status}",
            **policies.storing(board.request.limits),
        )
