"""Change a conversation: fork it, edit, answer again, retry, add, delete."""

from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy.exc import IntegrityError

from api.delivery import replace, retry, taken
from api.dependencies import ID, CurrentUser, Deps, IdempotencyKey, OwnSession, SessionId
from api.ownership import SessionRecord
from api.problems import CONFLICT, RESPONSES, TOO_LARGE, TOO_MANY
from api.request_body import MESSAGE_BODY_MAX, PostMessage, body_schema, json_body, own_id, parse_message, read_body
from api.schemas.messages import AddedMessage, AnswerAgain, NewFork, StoredMessage, Taken
from api.schemas.sessions import Session, session_fields
from longhaul.db import edits, forks, messages, sessions, turns, versions
from longhaul.db.connection import Connection
from longhaul.db.messages import row_id
from longhaul.llm import prompts
from longhaul.turns.deliver import IncomingMessage

router = APIRouter(prefix="/v1", tags=["messages"], responses=RESPONSES)
ROW_ID_MAX = 140
MessageId = Annotated[
    str,
    Path(
        max_length=ROW_ID_MAX,
        pattern=ID,
        description="A row's id, a sender's message id, or the id of a chat's message (a turn's, or `turn:follow-up`).",
    ),
]
WHOLE = 2**31 - 2


@router.post(
    "/sessions/{session_id}/fork",
    tags=["sessions"],
    status_code=201,
    summary="Fork a session at a message",
    responses={**CONFLICT, **TOO_LARGE},
    openapi_extra=body_schema(NewFork),
)
async def fork(
    session_id: SessionId,
    user: CurrentUser,
    deps: Deps,
    wanted: Annotated[NewFork, Depends(json_body(NewFork))],
    key: IdempotencyKey = None,
) -> Session:
    """A new session begins with what was said up to a message, that one included; without `message_id`, with
    everything. Its id may be of an older version, and the fork goes on from there. The workspace's files stay behind.
    """
    async with deps.database.read() as connection:
        source = await sessions.get(connection, session_id, user)
        until = WHOLE
        if wanted.message_id is not None:
            place = await edits.find(connection, session_id, wanted.message_id)
            until = place.first - 1 if wanted.before else place.last
    new_id = wanted.id or (row_id("fork", user, session_id, key) if key is not None else str(uuid4()))
    try:
        async with deps.database.write() as connection:
            await forks.fork(connection, source, new_id, until, title=wanted.title, unanswered=prompts.FORKED_CALL)
    except IntegrityError:
        pass  # another request has made it at the same moment
    async with deps.database.read() as connection:
        made = SessionRecord.model_validate(await sessions.get(connection, new_id, user))
    await deps.sessions.keep(made)
    return Session.model_validate(session_fields(made, deps.settings))


@router.post(
    "/sessions/{session_id}/messages/{message_id}/edit",
    status_code=202,
    summary="Edit a message and have it answered",
    responses={**CONFLICT, **TOO_LARGE, **TOO_MANY},
    openapi_extra=body_schema(PostMessage, required=True),
)
async def edit(
    session_id: SessionId,
    message_id: MessageId,
    user: CurrentUser,
    deps: Deps,
    request: Request,
    key: IdempotencyKey = None,
) -> Taken:
    """The message and what follows are replaced by a new version, which begins a turn. A turn that runs is stopped
    first. What was replaced is kept: `GET …/versions`. `message_id` in the body is the new version's own.
    """
    async with deps.database.read() as connection:
        session = await sessions.get(connection, session_id, user)
    sent = parse_message(await read_body(request, MESSAGE_BODY_MAX), session_id, key)
    async with deps.database.read() as connection:
        first = await edits.first_version(connection, session_id, message_id)
    delivery = await replace(
        deps, user, session, sent.message, of=first, files=sent.files, client_tools=sent.client_tools
    )
    return taken(deps, session_id, sent.message.id, delivery)


@router.post(
    "/sessions/{session_id}/messages/{message_id}/regenerate",
    status_code=202,
    summary="Answer a message again",
    responses={**CONFLICT, **TOO_LARGE, **TOO_MANY},
    openapi_extra=body_schema(AnswerAgain),
)
async def regenerate(
    session_id: SessionId,
    message_id: MessageId,
    user: CurrentUser,
    deps: Deps,
    wanted: Annotated[AnswerAgain, Depends(json_body(AnswerAgain))],
    key: IdempotencyKey = None,
) -> Taken:
    """The same as an edit with the same text. The id may be the answer's: then the message before it is answered."""
    async with deps.database.read() as connection:
        session = await sessions.get(connection, session_id, user)
        first = await edits.first_version(connection, session_id, message_id)
        known = await versions.of_message(connection, session_id, first)
    newest = versions.current(known) or known[-1]
    version = IncomingMessage(
        own_id(wanted.message_id, session_id, key),
        newest.content,
        newest.context,
        mode=wanted.mode,
        tier=wanted.tier,
        model=wanted.model,
        effort=wanted.effort,
    )
    return taken(deps, session_id, version.id, await replace(deps, user, session, version, of=first))


@router.post(
    "/sessions/{session_id}/turns/{turn_id}/retry",
    tags=["turns"],
    status_code=202,
    summary="Retry a failed turn",
    responses={**CONFLICT, **TOO_MANY},
)
async def retry_turn(
    session_id: SessionId, turn_id: Annotated[str, Path(max_length=64, pattern=ID)], user: CurrentUser, deps: Deps
) -> Taken:
    """Without a new message: what the turn did stays, no tool runs again, and its last model call is made again, in a
    turn of its own. Only the newest turn can be retried. The same retry again is the same turn.
    """
    async with deps.database.read() as connection:
        session = await sessions.get(connection, session_id, user)
        failed = await turns.get(connection, session_id, turn_id)
    message_id = (failed.trigger_message_id if failed is not None else None) or ""
    return taken(deps, session_id, message_id, await retry(deps, user, session, turn_id))


@router.post(
    "/sessions/{session_id}/messages/add",
    status_code=201,
    summary="Add a message that starts no turn",
    responses={**CONFLICT, **TOO_LARGE},
    openapi_extra=body_schema(AddedMessage, required=True),
)
async def add(
    session: OwnSession,
    user: CurrentUser,
    deps: Deps,
    added: Annotated[AddedMessage, Depends(json_body(AddedMessage, MESSAGE_BODY_MAX))],
    key: IdempotencyKey = None,
) -> StoredMessage:
    """At the end of the conversation, as if it had been said: the next turn sees it. Refused while a turn runs."""
    row = edits.added_row(session.id, own_id(added.message_id, session.id, key), added.role, added.content)

    async def append(connection: Connection, lost_turn_id: str) -> messages.StoredMessage:
        return await edits.append(connection, session.id, user, row, lost_turn_id=lost_turn_id)

    return StoredMessage.model_validate(await deps.delivery.when_idle(session.id, append))


@router.delete(
    "/sessions/{session_id}/messages/{message_id}",
    status_code=204,
    summary="Delete a message and its answer",
    responses=CONFLICT,
)
async def delete(session: OwnSession, message_id: MessageId, user: CurrentUser, deps: Deps) -> Response:
    """A person's message and what was said until the next one leave the conversation, for people and models. A message
    that was added without a turn leaves alone. Refused while a turn runs.
    """

    async def take_out(connection: Connection, lost_turn_id: str) -> None:
        await edits.delete(connection, session.id, user, message_id, lost_turn_id=lost_turn_id)

    await deps.delivery.when_idle(session.id, take_out)
    return Response(status_code=204)
