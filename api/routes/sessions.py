"""Sessions: create, list, read, rename, delete; and the messages that wait in one."""

import asyncio
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from api.cursors import CURSOR, cursor_of, position
from api.delivery import check_model, get_or_create
from api.dependencies import ID, CurrentUser, Dependencies, Deps, IdempotencyKey, OwnSession
from api.ownership import SessionRecord
from api.problems import RESPONSES, TOO_LARGE
from api.request_body import body_schema, json_body
from api.schemas.messages import Pending, PendingMessage, StoredMessage
from api.schemas.sessions import (
    ActiveTurn,
    ListedSession,
    NewSession,
    Session,
    SessionChange,
    SessionPage,
    Sessions,
    session_fields,
)
from longhaul.contracts import Scope
from longhaul.db import acceptance, conversation, files, schedules, session_list, sessions, turns
from longhaul.db.connection import Connection
from longhaul.db.messages import row_id
from longhaul.db.session_list import SessionFilter, SessionPosition
from longhaul.errors import UnavailableError
from longhaul.streams.ending import expire_streams
from longhaul.streams.events import file_part
from longhaul.streams.reader import newest_id
from longhaul.turns.stop import STOP_MAX_S

router = APIRouter(prefix="/v1", tags=["sessions"], responses=RESPONSES)
log = logging.getLogger(__name__)


@router.post(
    "/sessions",
    status_code=201,
    summary="Create a session",
    responses={200: {"description": "It exists, and was not changed.", "model": Session}, **TOO_LARGE},
    openapi_extra=body_schema(NewSession),
)
async def create(
    user: CurrentUser,
    deps: Deps,
    wanted: Annotated[NewSession, Depends(json_body(NewSession))],
    response: Response,
    key: IdempotencyKey = None,
) -> Session:
    """The body may be left out. With an `id` of your own, or an `Idempotency-Key`, the session is made once."""
    await check_model(deps, user, wanted.model)
    session_id = wanted.id or (row_id("session", user, key) if key is not None else str(uuid4()))
    scope = Scope(
        root_session_id=session_id,
        allow_tools=tuple(wanted.allow_tools) if wanted.allow_tools is not None else None,
        deny_tools=tuple(wanted.deny_tools),
        dry_run=wanted.dry_run,
    )
    session = sessions.NewSession(
        id=session_id,
        user_id=user,
        title=wanted.title,
        model=wanted.model,
        scope=scope,
        max_cost_microdollars=wanted.max_cost_microdollars,
        max_seconds=wanted.max_seconds,
        labels=wanted.metadata,
    )
    found = await get_or_create(deps, session)
    if not found.is_new:
        response.status_code = 200
    made = SessionRecord.model_validate(found.session)
    await deps.sessions.keep(made)
    return Session.model_validate(session_fields(made, deps.settings))


@router.get("/sessions", summary="List sessions")
async def listing(
    user: CurrentUser,
    deps: Deps,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=CURSOR, description="`next_cursor` of the page before.")] = None,
    parent: Annotated[
        str | None, Query(max_length=64, pattern=ID, description="The sub-sessions of this session.")
    ] = None,
    title: Annotated[
        str, Query(max_length=300, pattern=ID, description="Only those whose title contains this text.")
    ] = "",
    q: Annotated[
        str | None, Query(min_length=1, max_length=200, pattern=ID, description="In the title or in what was said.")
    ] = None,
    running: Annotated[bool | None, Query(description="Whether a turn runs.")] = None,
    agent: Annotated[str | None, Query(max_length=100, pattern=ID, description="The sub-sessions of an agent.")] = None,
    metadata: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}:[^\x00]{0,512}$")]],
        Query(max_length=16, description="`key:value`; only sessions with all of these."),
    ] = [],  # noqa: B006  # FastAPI copies it
) -> Sessions:
    """Newest first; without `parent` and `agent`, the sessions that are not sub-sessions."""
    labels = dict(one.split(":", 1) for one in metadata)
    wanted = SessionFilter(parent=parent, agent=agent, running=running, labels=labels, title=title, text=q)
    after = SessionPosition(*position(cursor)) if cursor is not None else None
    async with deps.database.read() as connection:
        rows = await session_list.list_of_user(connection, user, limit + 1, after, wanted)
    page = [
        ListedSession(
            **session_fields(row.session, deps.settings), running=row.running, last_message_at=row.last_message_at
        )
        for row in rows[:limit]
    ]
    more = len(rows) > limit
    next_cursor = cursor_of(page[-1].created_at, page[-1].id) if more else None
    return Sessions(data=page, sessions=page, has_more=more, next_cursor=next_cursor)


@router.get("/sessions/{session_id}", summary="A session and a page of its messages")
async def page(
    session: OwnSession,
    user: CurrentUser,
    deps: Deps,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before_sequence: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
) -> SessionPage:
    """The newest page first. A page may hold a few rows more than `limit`, so that no tool result lacks its call."""
    async with deps.database.read() as connection:
        rows, more = await conversation.page(connection, session.id, user, limit, before_sequence)
    active, pending = await asyncio.gather(active_turn(deps, session.id), _pending(deps, session.id))
    return SessionPage.model_validate(
        {
            **session_fields(session, deps.settings),
            "messages": [StoredMessage.model_validate(row) for row in rows],
            "oldest_sequence": rows[0].sequence if rows else None,
            "has_more_messages": more,
            "active_turn": active,
            "pending": pending,
        }
    )


async def active_turn(deps: Dependencies, session_id: str) -> ActiveTurn | None:
    """The turn that runs in a session, as people are shown it."""
    try:
        turn = await deps.turns.active(session_id)
    except UnavailableError:
        return None  # Temporal is away, and no row says that a turn runs.
    if turn is None:
        return None
    newest = await newest_id(deps.redis, turn.turn_id)
    return ActiveTurn(turn_id=turn.turn_id, status=turn.status, started_at=turn.started_at, last_event_id=newest)


async def _pending(deps: Dependencies, session_id: str) -> Pending:
    """The workflow's inbox with texts from rows. While no workflow answers, the rows that no turn has taken."""
    async with deps.database.read() as connection:
        waiting = await acceptance.list_waiting(connection, session_id)
    rows = {row.client_message_id: row for row in waiting if row.replaced_by is None}
    progress = await deps.turns.query(session_id) if rows else None
    received = {message_id: row.created_at for message_id, row in rows.items()}
    if progress is not None:
        in_inbox = {entry.message_id: entry.received_at for entry in progress.inbox}
        received = in_inbox | {message_id: row.created_at for message_id, row in rows.items() if row.queued}
    pending_messages = [
        PendingMessage(
            id=message_id,
            content=rows[message_id].content,
            files=[file_part(file) for file in (rows[message_id].context or {}).get("files") or ()],
            received_at=received_at,
            queued=bool(rows[message_id].queued),
        )
        for message_id, received_at in received.items()
        if message_id in rows
    ]
    return Pending(messages=pending_messages, count=len(pending_messages))


@router.get("/sessions/{session_id}/messages/pending", tags=["messages"], summary="Messages that wait")
async def pending(session: OwnSession, deps: Deps) -> Pending:
    """Messages that the running turn has received and not taken yet, and those that wait for turns of their own."""
    return await _pending(deps, session.id)


@router.patch(
    "/sessions/{session_id}",
    summary="Change a session's title, model or metadata",
    responses=TOO_LARGE,
    openapi_extra=body_schema(SessionChange, required=True),
)
async def change(
    session: OwnSession,
    user: CurrentUser,
    deps: Deps,
    body: Annotated[SessionChange, Depends(json_body(SessionChange))],
) -> Session:
    await check_model(deps, user, body.model)
    async with deps.database.write() as connection:
        if "title" in body.model_fields_set:
            await sessions.rename(connection, session.id, user, body.title)
        if "model" in body.model_fields_set:
            await sessions.choose_model(connection, session.id, user, body.model)
        if body.metadata is not None:
            await sessions.relabel(connection, session.id, user, body.metadata)
        row = await sessions.get(connection, session.id, user)
    return Session.model_validate(session_fields(row, deps.settings))


@router.delete("/sessions/{session_id}", status_code=204, summary="Delete a session")
async def delete(session: OwnSession, deps: Deps) -> Response:
    """Stops the session and all sub-sessions below it, then removes their rows, streams and schedules.

    With a root session, its files are removed too.
    """
    async with deps.database.read() as connection:
        running = await _with_descendants(connection, session)
    await asyncio.gather(*(deps.stopper.stop(session_id, STOP_MAX_S) for session_id in running))
    async with deps.database.write() as connection:
        doomed = await _with_descendants(connection, session)  # A turn may have started another one until its Stop.
        turn_ids = await turns.ids_of_sessions(connection, doomed)
        shared = await files.remove_of_sessions(connection, doomed)
        scheduled = await schedules.remove_of_sessions(connection, doomed)
        await sessions.delete_all(connection, doomed)
    await deps.schedules.remove_all(scheduled)
    # What did not stop in time, and turns of messages that were accepted after the Stop. Without rows none follows.
    await asyncio.gather(*(deps.stopper.terminate(session_id) for session_id in doomed))
    await deps.sessions.forget(doomed)
    await expire_streams(deps.redis, turn_ids)
    await _remove_shared(deps, shared)
    if session.root_session_id in (None, session.id):
        for folder in (deps.settings.jobs_folder / session.id, deps.settings.workspace_of(session.id)):
            await asyncio.to_thread(_remove_folder, folder)
    return Response(status_code=204)


async def _with_descendants(connection: Connection, session: SessionRecord) -> list[str]:
    below = await sessions.descendants(connection, session.id, session.root_session_id)
    return [session.id, *(sub_session.id for sub_session in below)]


async def _remove_shared(deps: Dependencies, file_ids: Sequence[str]) -> None:
    """Remove the files that tools of a deleted session have shown; as with its folders, a failure is logged."""
    try:
        for file_id in file_ids:
            await deps.files.remove(file_id)
    except UnavailableError as error:
        log.warning("files that tools of a deleted session have shown stay: %s", error)


def _remove_folder(folder: Path) -> None:
    """Remove files of a deleted session. The session is gone already, so a failure is for the operator only."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("the files of a deleted session stay in %s: %s", folder, error)
