"""The rows and the live status behind the sub-session tools."""

import time

import orjson
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.attempt import TurnStreams, storage_faults
from activities.narrowing import lasting, narrowed, rejoined, unheard
from activities.sub_session_results import result_of
from longhaul.contracts import (
    SUB_STATES,
    LookAtSubSession,
    PreparedSubSession,
    PrepareSubSession,
    ReportSubSession,
    Scope,
    SubSessionSeen,
    SubSessionState,
    ToolOutcome,
    ToolStatus,
    TurnRef,
    TurnStatus,
)
from longhaul.db import messages, sessions, turns
from longhaul.db.database import Connection, Database
from longhaul.db.messages import row_id
from longhaul.db.sessions import NewSession, Session
from longhaul.db.turns import TurnRecord
from longhaul.errors import InboxFullError, NotFoundError
from longhaul.settings import Settings
from longhaul.streams.events import data_part, tool_output_part
from longhaul.streams.publisher import outputs_in
from longhaul.temporal import TURN_ID_MEMO, workflow_id
from longhaul.tools.workflow_tools import RunSubSession

TASK_CHARS = 80
LOOKS = 3


class SubSessionActivities:
    """Makes sub-sessions, looks at them, tells their results."""

    def __init__(self, database: Database, streams: TurnStreams, temporal: Client, settings: Settings) -> None:
        self._database = database
        self._streams = streams
        self._temporal = temporal
        self._settings = settings

    @activity.defn
    async def prepare_sub_session(self, call: PrepareSubSession) -> PreparedSubSession:
        """The sub-session's row and the message that waits in it. A repeated call makes neither twice."""
        turn, given = call.turn, RunSubSession.model_validate_json(call.arguments)
        message_id = row_id(turn.turn_id, call.round, "prompt", call.tool_call_id)
        sub_id = given.sub_session_id or row_id(turn.turn_id, call.round, "sub-session", call.tool_call_id)
        content, scope = given.prompt, narrowed(call.scope, given, turn.session_id)
        if error := unheard(given):
            return PreparedSubSession(error=error)
        try:
            with storage_faults(missing_is_final=False):
                async with self._database.write() as connection:
                    if given.sub_session_id:
                        session = await _below(connection, turn, sub_id)
                        scope = rejoined(Scope.model_validate(session.scope), call.scope)
                        content = "\n\n".join(filter(None, (given.system_context, content)))
                    else:
                        await self._create(connection, turn, sub_id, given, scope)
                    await messages.accept(
                        connection,
                        session_id=sub_id,
                        user_id=turn.user_id,
                        message_id=message_id,
                        content=content,
                        context=None,
                        limit=self._settings.max_pending_messages,
                    )
        except NotFoundError as error:
            return PreparedSubSession(error=str(error))
        except InboxFullError as error:
            return PreparedSubSession(error=f"The sub-session takes no more messages for now: {error}")
        task = _task(given.prompt)
        async with self._streams.publisher(turn) as publisher:
            news = {"sub_session_id": sub_id, "tool_call_id": call.tool_call_id, "status": "running", "task": task}
            publisher.put(data_part("sub-session", {"event": "started", **news}))
        return PreparedSubSession(
            sub_session_id=sub_id, message_id=message_id, task=task, scope=scope, published=not publisher.broken
        )

    async def _create(
        self, connection: Connection, turn: TurnRef, sub_id: str, given: RunSubSession, scope: Scope
    ) -> None:
        await sessions.create(
            connection,
            NewSession(
                id=sub_id,
                user_id=turn.user_id,
                title=_task(given.prompt),
                parent_session_id=turn.session_id,
                parent_turn_id=turn.turn_id,
                root_session_id=scope.root_session_id,
                system_context=given.system_context or None,
                scope=lasting(scope),
                max_cost_microdollars=given.max_cost_microdollars,
                max_seconds=given.max_seconds,
                agent=given.agent or None,
            ),
        )

    @activity.defn
    async def look_at_sub_session(self, look: LookAtSubSession) -> SubSessionSeen:
        """The status as Temporal knows it, so that a cancelled or failed one never reads as completed."""
        turn, sub_id = look.turn, look.sub_session_id
        if sub_id in (*look.scope.ancestors, turn.session_id):
            return SubSessionSeen(error="A session cannot wait for itself or for one above it.")
        try:
            with storage_faults(missing_is_final=False):
                async with self._database.read() as connection:
                    session = await _below(connection, turn, sub_id)
                    below = await _all_below(connection, session) if look.cancel else []
        except NotFoundError as error:
            return SubSessionSeen(error=str(error))
        seen = await self._standing(look)
        for session_id in (sub_id, *below) if look.cancel else ():
            await self._cancel(session_id)
        scope = Scope.model_validate(session.scope)
        told = {"task": session.title or "", "detached": scope.detached, "far": scope.ancestors[-1] != turn.session_id}
        return seen.model_copy(update=told)

    async def _standing(self, look: LookAtSubSession) -> SubSessionSeen:
        """How the newest turn stands, or the one that takes a message.

        Rows are read behind Temporal's word, for a turn stores its end before it ends. One that is unfinished while
        Temporal runs nothing may have begun in between, so both are asked again before it counts as dead.
        """
        for _ in range(LOOKS):
            running = await self._running_turn(look.sub_session_id)
            turn_id = running
            with storage_faults(missing_is_final=False):
                async with self._database.read() as connection:
                    if look.message_id:
                        row = await messages.get(connection, row_id(look.sub_session_id, "user", look.message_id))
                        turn_id = (row.turn_id if row is not None else None) or ""
                        if running is not None and turn_id in ("", running):
                            found = await turns.get(connection, look.sub_session_id, turn_id)
                            if found is None or not TurnStatus(found.status).final:
                                return SubSessionSeen(turn_id=turn_id)
                    elif running is not None:
                        return SubSessionSeen(turn_id=running)
                    newest = await self._turn(connection, look.sub_session_id, turn_id)
            if newest is not None and TurnStatus(newest.status).final:
                return SubSessionSeen(status=SUB_STATES[TurnStatus(newest.status)], turn_id=newest.turn_id)
        if newest is None:
            return SubSessionSeen(error=f"The sub-session {look.sub_session_id} has not been started.")
        return SubSessionSeen(status=SubSessionState.ERROR, turn_id=newest.turn_id)

    async def _turn(self, connection: Connection, session_id: str, turn_id: str | None) -> TurnRecord | None:
        if turn_id:
            return await turns.get(connection, session_id, turn_id)
        return await turns.newest(connection, session_id)

    async def _running_turn(self, session_id: str) -> str | None:
        try:
            found = await self._temporal.get_workflow_handle(workflow_id(session_id)).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        if found.status is not WorkflowExecutionStatus.RUNNING:
            return None
        return str((await found.memo()).get(TURN_ID_MEMO, ""))

    async def _cancel(self, session_id: str) -> None:
        try:
            await self._temporal.get_workflow_handle(workflow_id(session_id)).cancel()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    @activity.defn
    async def report_sub_session(self, report: ReportSubSession) -> ToolOutcome:
        """Store and publish what a sub-session tool answers."""
        turn, started = report.turn, time.monotonic()
        with storage_faults():
            async with self._database.write() as connection:
                own_row = row_id(turn.turn_id, report.round, "tool", report.tool_call_id)
                stored = await messages.get(connection, own_row)
                output = stored.content if stored else orjson.dumps(await result_of(connection, report)).decode()
                row = messages.tool_row(
                    turn.turn_id,
                    report.round,
                    report.tool_call_id,
                    report.name,
                    output,
                    duration_ms=round((time.monotonic() - started + report.elapsed_seconds) * 1000),
                )
                await messages.append(connection, turn.session_id, [row])
        async with self._streams.publisher(turn) as publisher:
            event = "progress" if report.status is SubSessionState.RUNNING else "ended"
            news = {"sub_session_id": report.sub_session_id, "tool_call_id": report.tool_call_id}
            publisher.put(data_part("sub-session", {"event": event, **news, "status": report.status}))
            if activity.info().attempt == 1 or report.tool_call_id not in outputs_in(await publisher.since_step()):
                publisher.put(tool_output_part(report.tool_call_id, output, is_error=False))
        return ToolOutcome(tool_call_id=report.tool_call_id, status=ToolStatus.OK, published=not publisher.broken)


async def _below(connection: Connection, turn: TurnRef, sub_id: str) -> Session:
    """A sub-session below this turn's session. All else reads as missing: what is not below may do more than we may.

    Raises:
        NotFoundError: one text for all of it.
    """
    missing = NotFoundError(f"There is no sub-session {sub_id} of this session.")
    try:
        session = await sessions.get(connection, sub_id, turn.user_id)
    except NotFoundError:
        raise missing from None
    if turn.session_id not in Scope.model_validate(session.scope or {}).ancestors:
        raise missing
    return session


async def _all_below(connection: Connection, session: Session) -> list[str]:
    family = await sessions.descendants_of_root(connection, session.root_session_id or session.id)
    return [row.id for row in family if session.id in Scope.model_validate(row.scope or {}).ancestors]


def _task(prompt: str) -> str:
    return " ".join(prompt.split())[:TASK_CHARS]
