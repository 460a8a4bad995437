"""What the sub-session tools do outside the workflow: create the session, look how it stands, store the result."""

import asyncio
import time
from collections.abc import Collection
from typing import Any

import orjson
from redis.asyncio import Redis
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from activities.attempt import TurnStreams, storage_faults
from activities.scopes import continued, narrowed, without_deadlines
from longhaul.contracts import (
    SUB_STATES,
    Empty,
    LookAtSubSession,
    PreparedSubSession,
    PrepareSubSession,
    ReportSubSession,
    Scope,
    StopSubSessions,
    SubSessionSeen,
    SubSessionState,
    ToolOutcome,
    ToolStatus,
    TurnRef,
)
from longhaul.db import acceptance, conversation, ledger, messages, sessions
from longhaul.db.acceptance import Accepted
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.messages import StoredMessage, row_id
from longhaul.db.sessions import NewSession, Session
from longhaul.errors import InboxFullError, NotFoundError, TooManyTurnsError, UsageLimitError
from longhaul.limits.usage import UsageLimits
from longhaul.settings import Settings
from longhaul.streams.events import data_part, tool_output_part
from longhaul.tools import Registry
from longhaul.tools.workflow_tools import RunSubSession
from longhaul.turns.quota import TurnQuota
from longhaul.turns.status import TurnLookup
from longhaul.turns.stop import TurnStopper

TASK_CHARS = 80
RECENT_MESSAGES = 5
RECENT_CHARS = 400
RECENT_TOOL_CALLS = 50
ONLY_WHEN_CREATED = ("allow_tools", "dry_run", "max_cost_microdollars", "max_seconds")
MESSAGES_BY_STATE = {
    SubSessionState.RUNNING: "It still works; poll it with get_sub_session_result.",
    SubSessionState.COMPLETED: "It has finished.",
    SubSessionState.ERROR: "It failed.",
    SubSessionState.CANCELLED: "It was stopped.",
}


class SubSessionActivities:
    """Creates sub-sessions, looks how they stand, reports their results."""

    def __init__(
        self,
        database: Database,
        streams: TurnStreams,
        temporal: Client,
        redis: "Redis",
        tools: Registry,
        usage: UsageLimits,
        settings: Settings,
    ) -> None:
        self._database = database
        self._streams = streams
        self._tools = tools
        self._usage = usage
        self._settings = settings
        self._turns = TurnLookup(database, temporal, settings.temporal_rpc_timeout)
        self._quota = TurnQuota(settings, self._turns)
        self._stopper = TurnStopper(database, temporal, redis, self._turns, settings.temporal_rpc_timeout)

    @activity.defn
    async def prepare_sub_session(self, call: PrepareSubSession) -> PreparedSubSession:
        """Store the sub-session's row and the message that waits in it. A repeated call stores neither twice."""
        turn, arguments = call.turn, await self._arguments(call)
        if error := rejected_arguments(arguments):
            return PreparedSubSession(error=error)
        message_id = row_id(turn.turn_id, call.round, "prompt", call.tool_call_id)
        sub_id = arguments.sub_session_id or row_id(turn.turn_id, call.round, "sub-session", call.tool_call_id)
        available = {tool.name for tool in self._tools.allowed(call.scope)}
        content, scope = arguments.prompt, narrowed(call.scope, arguments, turn.session_id, available)
        if arguments.sub_session_id:
            content = "\n\n".join(filter(None, (arguments.system_context, content)))

        async def store(lost: Collection[str]) -> Accepted:
            nonlocal scope
            async with self._database.write() as connection:
                if arguments.sub_session_id:
                    session = await _session_below(connection, turn, sub_id)
                    scope = continued(Scope.model_validate(session.scope), call.scope)
                else:
                    await _create(connection, turn, sub_id, arguments, scope)

                async def may_begin() -> None:
                    if refusal is not None:
                        raise refusal
                    root = scope.root_session_id or turn.session_id
                    await self._quota.check_tree(connection, turn.user_id, root, sub_id, lost)

                return await acceptance.accept(
                    connection,
                    session_id=sub_id,
                    user_id=turn.user_id,
                    message_id=message_id,
                    content=content,
                    context=None,
                    limit=self._settings.max_pending_messages,
                    may_begin=may_begin,
                )

        try:
            with storage_faults(missing_is_final=False):
                refusal = await self._usage.refusal(turn.user_id, call.cost_limits)
                accepted = await self._quota.within(store)
        except NotFoundError as error:
            return PreparedSubSession(error=str(error))
        except TooManyTurnsError as error:
            return PreparedSubSession(
                error=f"run_sub_session: {len(error.running)} sub-sessions of this conversation are running already, "
                f"and the limit is {error.limit}. Wait for some of them to end, or do this task yourself."
            )
        except UsageLimitError as error:
            return PreparedSubSession(error=f"run_sub_session: nothing was started. {error}")
        except InboxFullError as error:
            return PreparedSubSession(error=f"The sub-session takes no more messages for now: {error}")
        async with self._streams.publisher(turn) as publisher:
            part = {"sub_session_id": sub_id, "tool_call_id": call.tool_call_id, "status": "running"}
            publisher.put(data_part("sub-session", {"event": "started", **part, "task": _task(arguments.prompt)}))
        return PreparedSubSession(
            sub_session_id=sub_id,
            message_id=message_id,
            turn_id=accepted.turn_id,
            run_turn_id=accepted.run_turn_id,
            scope=scope,
            published=not publisher.broken,
        )

    async def _arguments(self, call: PrepareSubSession) -> RunSubSession:
        """The arguments of the call, from the assistant's row."""
        with storage_faults():
            async with self._database.read() as connection:
                rows = await conversation.rows_of_round(connection, call.turn.turn_id, call.round)
        arguments = conversation.arguments_of_call(rows, call.tool_call_id)
        if arguments is None:
            raise ApplicationError(f"Round {call.round} has no call {call.tool_call_id}.", non_retryable=True)
        return RunSubSession.model_validate_json(arguments)

    @activity.defn
    async def look_at_sub_session(self, look: LookAtSubSession) -> SubSessionSeen:
        """The status from Temporal, so that a cancelled or failed sub-session never reads as completed."""
        turn, sub_id = look.turn, look.sub_session_id
        if sub_id in (*look.scope.ancestors, turn.session_id):
            return SubSessionSeen(error="A session cannot wait for itself or for one above it.")
        try:
            with storage_faults(missing_is_final=False):
                async with self._database.read() as connection:
                    session = await _sub_session(connection, turn, sub_id)
                    scope = Scope.model_validate(session.scope)
                    is_below = turn.session_id in scope.ancestors
                    if look.cancel and not is_below:
                        return SubSessionSeen(error=f"Sub-session {sub_id} is not below this session; only poll it.")
                    below = await sessions.descendants(connection, sub_id, session.root_session_id)
                if look.message_id:
                    standing = await self._turns.taking(sub_id, look.message_id)
                else:
                    standing = await self._turns.newest(sub_id)
                for each in (session, *below) if look.cancel else ():
                    await self._stopper.request_stop(each.id)
        except NotFoundError as error:
            return SubSessionSeen(error=str(error))
        if standing is None:
            return SubSessionSeen(error=f"The sub-session {sub_id} has not been started.")
        return SubSessionSeen(
            status=SUB_STATES[standing.status],
            turn_id=standing.turn_id,
            # Stop on this turn must not reach a sub-session of another one.
            detached=scope.detached or not is_below,
            far=scope.ancestors[-1] != turn.session_id,
        )

    @activity.defn
    async def stop_sub_sessions(self, stop: StopSubSessions) -> Empty:
        """Stop sub-sessions as a person does: messages that are accepted from now on begin their next turns."""
        with storage_faults():
            await asyncio.gather(*map(self._stopper.request_stop, stop.sub_session_ids))
        return Empty()

    @activity.defn
    async def report_sub_session(self, report: ReportSubSession) -> ToolOutcome:
        """Store and publish the result of a sub-session tool."""
        turn, started = report.turn, time.monotonic()
        with storage_faults():
            async with self._database.write() as connection:
                own_row = row_id(turn.turn_id, report.round, "tool", report.tool_call_id)
                stored = await messages.get(connection, own_row)
                if stored is not None:
                    output = stored.content
                else:
                    result = await result_of(connection, report, self._settings.url_for_users)
                    output = orjson.dumps(result).decode()
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
            update = {"sub_session_id": report.sub_session_id, "tool_call_id": report.tool_call_id}
            publisher.put(data_part("sub-session", {"event": event, **update, "status": report.status}))
            part = tool_output_part(report.tool_call_id, output, is_error=False)
            publisher.put(part, once=f"output:{report.round}:{report.tool_call_id}")
        return ToolOutcome(tool_call_id=report.tool_call_id, status=ToolStatus.OK, published=not publisher.broken)


def rejected_arguments(arguments: RunSubSession) -> str | None:
    """Reject an agent profile that does not exist, and options for new sub-sessions if the call names an existing one.

    Returns:
        The error for the model, or None.
    """
    if arguments.agent:
        return "run_sub_session: there are no agent profiles; leave out agent."
    if not arguments.sub_session_id:
        return None
    fields = RunSubSession.model_fields
    rejected = [name for name in ONLY_WHEN_CREATED if getattr(arguments, name) != fields[name].default]
    if not rejected:
        return None
    return (
        f"run_sub_session: {', '.join(rejected)} can be set for a new sub-session only. Leave it out to continue this "
        "one, or leave out sub_session_id."
    )


async def result_of(connection: Connection, report: ReportSubSession, public_url: str) -> dict[str, Any]:
    """The result that the model reads. A running sub-session shows no answer, least of all an old one."""
    sub_id, ended = report.sub_session_id, report.status is not SubSessionState.RUNNING
    rows = await conversation.rows_of_turn(connection, report.sub_turn_id) if ended and report.sub_turn_id else []
    answers = [row.content for row in rows if row.role == "assistant" and row.content and not row.is_error]
    failure = next((row.content for row in rows if row.kind == "error"), "")
    usage = (await ledger.usage_of_each(connection, [sub_id])).get(sub_id)
    result: dict[str, Any] = {
        "status": SubSessionState.QUEUED if report.queued and not ended else report.status,
        "sub_session_id": sub_id,
        "link": f"{public_url}/v1/sessions/{sub_id}",
        "response": answers[-1] if answers else None,
        "tool_calls": _tool_calls(rows),
        "usage": usage.model_dump() if usage is not None else None,
        "elapsed_seconds": round(report.elapsed_seconds, 1),
        "progress": await _recent(connection, sub_id) if report.include_progress else None,
        "message": " ".join(filter(None, (_message(report), failure))),
    }
    return {**result, "queued": True} if report.queued else result


def _tool_calls(rows: list[StoredMessage]) -> list[dict[str, str]]:
    """The newest tool calls of a turn: name and outcome."""
    outcomes = {row.tool_call_id: "error" if row.is_error else "ok" for row in rows if row.role == "tool"}
    calls = [call for row in rows for call in row.tool_calls or ()]
    return [
        {"name": call["function"]["name"], "outcome": outcomes.get(call["id"], "none")}
        for call in calls[-RECENT_TOOL_CALLS:]
    ]


def _message(report: ReportSubSession) -> str:
    text = MESSAGES_BY_STATE[report.status]
    if report.status is SubSessionState.RUNNING:
        if report.cancel:
            return "It was asked to stop and has not ended yet; poll it with get_sub_session_result."
        if report.queued:
            text = f"It is at work, and your prompt waits in it. {text}"
        return f"The user wrote a message, so the wait was cut short. {text}" if report.interrupted else text
    if report.cancel and report.status is not SubSessionState.CANCELLED:
        return f"{text} There was nothing to stop."
    return text


async def _recent(connection: Connection, sub_id: str) -> dict[str, Any]:
    rows = (await conversation.for_model(connection, sub_id))[-RECENT_MESSAGES:]
    return {
        "messages": await conversation.length(connection, sub_id),
        "recent": [{"role": row.role, "content": row.content[:RECENT_CHARS]} for row in rows],
    }


async def _create(connection: Connection, turn: TurnRef, sub_id: str, arguments: RunSubSession, scope: Scope) -> None:
    await sessions.create(
        connection,
        NewSession(
            id=sub_id,
            user_id=turn.user_id,
            title=_task(arguments.prompt),
            parent_session_id=turn.session_id,
            parent_turn_id=turn.turn_id,
            root_session_id=scope.root_session_id,
            system_context=arguments.system_context or None,
            scope=without_deadlines(scope),
            max_cost_microdollars=arguments.max_cost_microdollars,
            max_seconds=arguments.max_seconds,
        ),
    )


async def _sub_session(connection: Connection, turn: TurnRef, sub_id: str) -> Session:
    """A sub-session of the turn's user.

    Raises:
        NotFoundError: the same text for a missing session, a foreign one, and one that is no sub-session.
    """
    missing = NotFoundError(f"There is no sub-session {sub_id} of this session.")
    try:
        session = await sessions.get(connection, sub_id, turn.user_id)
    except NotFoundError:
        raise missing from None
    if session.parent_session_id is None:
        raise missing
    return session


async def _session_below(connection: Connection, turn: TurnRef, sub_id: str) -> Session:
    """A sub-session below this turn's session. Every other session reads as missing: it may have wider permissions.

    Raises:
        NotFoundError: the same text as of `_sub_session`.
    """
    session = await _sub_session(connection, turn, sub_id)
    if turn.session_id not in Scope.model_validate(session.scope or {}).ancestors:
        raise NotFoundError(f"There is no sub-session {sub_id} of this session.")
    return session


def _task(prompt: str) -> str:
    return " ".join(prompt.split())[:TASK_CHARS]
