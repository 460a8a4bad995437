"""The rows and the live status behind the sub-session tools."""

import time
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.deps import Deps, storage_faults
from copilot.contracts import (
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
from copilot.db import messages, sessions
from copilot.db.messages import row_id
from copilot.errors import InboxFullError, NotFoundError
from copilot.streams.events import data_part, tool_output_part
from copilot.tools.flow import RunSubSession

TASK_CHARS = 80
RECENT_MESSAGES = 5
RECENT_CHARS = 400
WORDS = {
    SubSessionState.RUNNING: "It still works; poll it with get_sub_session_result.",
    SubSessionState.COMPLETED: "It has finished.",
    SubSessionState.ERROR: "It failed.",
    SubSessionState.CANCELLED: "It was stopped.",
}


class SubSessionActivities:
    """Makes sub-sessions, looks at them, tells their results."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn
    async def prepare_sub_session(self, call: PrepareSubSession) -> PreparedSubSession:
        """The sub-session's row and the message that waits in it. A repeated call makes neither twice."""
        turn, given = call.turn, RunSubSession.model_validate_json(call.arguments)
        message_id = row_id(turn.turn_id, call.round, "prompt", call.tool_call_id)
        sub_id = given.sub_session_id or row_id(turn.turn_id, call.round, "sub-session", call.tool_call_id)
        scope = narrowed(call.scope, given, turn.session_id)
        try:
            with storage_faults(missing_is_final=False):
                async with self._deps.db.write() as connection:
                    if given.sub_session_id:
                        session = await _own(connection, turn, sub_id)
                        scope = Scope.model_validate(session.scope or {})
                    else:
                        await self._create(connection, turn, sub_id, given, scope)
                    await messages.accept(
                        connection,
                        session_id=sub_id,
                        user_id=turn.user_id,
                        message_id=message_id,
                        content=given.prompt,
                        context=None,
                        limit=self._deps.settings.max_pending_messages,
                    )
        except NotFoundError as error:
            return PreparedSubSession(error=str(error))
        except InboxFullError as error:
            return PreparedSubSession(error=f"The sub-session takes no more messages for now: {error}")
        task = " ".join(given.prompt.split())[:TASK_CHARS]
        async with self._deps.publisher(turn) as publisher:
            news = {"sub_session_id": sub_id, "tool_call_id": call.tool_call_id, "status": "running", "task": task}
            publisher.put(data_part("sub-session", news))
        return PreparedSubSession(
            sub_session_id=sub_id, message_id=message_id, task=task, scope=scope, published=not publisher.broken
        )

    async def _create(
        self, connection: AsyncConnection, turn: TurnRef, sub_id: str, given: RunSubSession, scope: Scope
    ) -> None:
        # A deadline belongs to the turn that delegates; somebody who writes to the sub-session later has the time.
        lasting = tuple(b.model_copy(update={"deadline": None}) for b in scope.budgets if b.max_cost_microdollars)
        await sessions.create(
            connection,
            {
                "id": sub_id,
                "user_id": turn.user_id,
                "title": " ".join(given.prompt.split())[:TASK_CHARS],
                "parent_session_id": turn.session_id,
                "parent_turn_id": turn.turn_id,
                "root_session_id": scope.root_session_id,
                "system_context": given.system_context or None,
                "scope": scope.model_copy(update={"budgets": lasting}).model_dump(mode="json"),
                "max_cost_microdollars": given.max_cost_microdollars,
                "max_seconds": given.max_seconds,
                "agent": given.agent or None,
            },
        )

    @activity.defn
    async def look_at_sub_session(self, look: LookAtSubSession) -> SubSessionSeen:
        """The status as Temporal knows it, so that a cancelled or failed one never reads as completed."""
        turn, sub_id = look.turn, look.sub_session_id
        try:
            with storage_faults(missing_is_final=False):
                async with self._deps.db.read() as connection:
                    session = await _own(connection, turn, sub_id)
                    if sub_id in (*look.scope.ancestors, turn.session_id):
                        return SubSessionSeen(error="A session cannot wait for itself or for one above it.")
                    newest = next(iter(await sessions.turns(connection, sub_id, limit=1)), None)
                    below = [
                        row.id
                        for row in await sessions.below(connection, session.root_session_id or sub_id)
                        if sub_id in Scope.model_validate(row.scope or {}).ancestors
                    ]
        except NotFoundError as error:
            return SubSessionSeen(error=str(error))
        running = await self._running_turn(sub_id)
        if look.cancel:
            for session_id in (sub_id, *below):
                await self._cancel(session_id)
        if running is not None:
            return SubSessionSeen(status=SubSessionState.RUNNING, turn_id=running, was_running=True)
        if newest is None:
            return SubSessionSeen(error=f"The sub-session {sub_id} has not been started.")
        # A row that still says `running` while Temporal runs nothing is a turn that died without a word.
        status = TurnStatus(newest.status) if TurnStatus(newest.status).final else TurnStatus.FAILED
        return SubSessionSeen(status=SUB_STATES[status], turn_id=newest.turn_id)

    async def _running_turn(self, session_id: str) -> str | None:
        try:
            found = await self._deps.temporal.get_workflow_handle(f"turn:{session_id}").describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        if found.status is not WorkflowExecutionStatus.RUNNING:
            return None
        return str((await found.memo()).get("turn_id", ""))

    async def _cancel(self, session_id: str) -> None:
        try:
            await self._deps.temporal.get_workflow_handle(f"turn:{session_id}").cancel()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    @activity.defn
    async def report_sub_session(self, report: ReportSubSession) -> ToolOutcome:
        """Store and publish what a sub-session tool answers."""
        turn, started = report.turn, time.monotonic()
        with storage_faults():
            async with self._deps.db.write() as connection:
                output = orjson.dumps(await self._result(connection, report)).decode()
                row = messages.tool_row(
                    turn.turn_id,
                    report.round,
                    report.tool_call_id,
                    report.name,
                    output,
                    duration_ms=round((time.monotonic() - started + report.elapsed_seconds) * 1000),
                )
                await messages.append(connection, turn.session_id, [row])
        async with self._deps.publisher(turn) as publisher:
            news = {"sub_session_id": report.sub_session_id, "tool_call_id": report.tool_call_id}
            publisher.put(data_part("sub-session", {**news, "status": report.status}))
            publisher.put(tool_output_part(report.tool_call_id, output, is_error=False))
        return ToolOutcome(tool_call_id=report.tool_call_id, status=ToolStatus.OK, published=not publisher.broken)

    async def _result(self, connection: AsyncConnection, report: ReportSubSession) -> dict[str, Any]:
        sub_id, ended = report.sub_session_id, report.status is not SubSessionState.RUNNING
        rows = await messages.of_turn(connection, report.sub_turn_id) if ended and report.sub_turn_id else []
        spoken = [row.content for row in rows if row.role == "assistant" and row.content]
        words = WORDS[report.status]
        if report.was_cancelled:
            words = "It was stopped." if ended else "It has been told to stop."
        elif report.interrupted:
            words = "The person wrote something, so the wait was cut short. " + words
        result: dict[str, Any] = {
            "status": "queued" if report.queued and not ended else report.status,
            "sub_session_id": sub_id,
            "link": f"/v1/sessions/{sub_id}",
            "response": spoken[-1] if spoken else None,
            "tool_calls": sum(len(row.tool_calls or ()) for row in rows),
            "usage": (await sessions.spent(connection, [sub_id])).get(sub_id, None),
            "elapsed_seconds": round(report.elapsed_seconds, 1),
            "message": words,
        }
        result["usage"] = result["usage"].model_dump() if result["usage"] else None
        if report.queued:
            result["queued"] = True
        if report.include_progress:
            result["progress"] = await _recent(connection, sub_id)
        return result


async def _own(connection: AsyncConnection, turn: TurnRef, sub_id: str) -> Any:
    """A sub-session of this user; anything else reads as missing."""
    session = await sessions.get(connection, sub_id, turn.user_id)
    if session.parent_session_id is None and session.id != turn.session_id:
        raise NotFoundError(f"There is no session {sub_id}.")
    return session


async def _recent(connection: AsyncConnection, sub_id: str) -> dict[str, Any]:
    rows = (await messages.conversation(connection, sub_id))[-RECENT_MESSAGES:]
    return {
        "messages": await messages.count(connection, sub_id),
        "recent": [{"role": row.role, "content": row.content[:RECENT_CHARS]} for row in rows],
    }


def narrowed(parent: Scope, given: RunSubSession, parent_id: str) -> Scope:
    """What a sub-session may do: never more than its parent."""
    allow = parent.allow_tools
    if given.allow_tools is not None:
        allow = tuple(n for n in given.allow_tools if parent.allow_tools is None or n in parent.allow_tools)
    return Scope(
        depth=parent.depth + 1,
        ancestors=(*parent.ancestors, parent_id),
        root_session_id=parent.root_session_id or parent_id,
        allow_tools=allow,
        deny_tools=parent.deny_tools,
        dry_run=parent.dry_run or given.dry_run,
        budgets=parent.budgets,
    )
