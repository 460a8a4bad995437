"""The AI SDK's chat protocol: its transports work unmodified with `api: "/v1/chat"`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import uuid4

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.chat_body import Chat, ChatMessages, ChatReply, parse_chat
from api.chat_reply import answer_before, continue_chat
from api.chat_stream import RUN_ID, TAIL_INDEX, ChatEvents, ChatView
from api.delivery import deliver, own_or_new_session, replace
from api.dependencies import ID, CurrentUser, Dependencies, Deps, OwnSession, StreamSlot
from api.ownership import SessionRecord
from api.problems import CONFLICT, RESPONSES, TOO_LARGE, TOO_MANY
from api.request_body import MESSAGE_BODY_MAX, body_schema, read_body
from api.schemas.messages import MessageVersion, MessageVersions, StoredMessage
from longhaul.db import conversation, parked, sessions, turns, versions
from longhaul.db.connection import Connection
from longhaul.db.messages import replace_unstorable, row_id
from longhaul.db.models import utc_now
from longhaul.db.sessions import Session
from longhaul.errors import NotFoundError
from longhaul.streams.chat_parts import TakeBack, of_message
from longhaul.streams.ui_messages import ui_messages, with_approvals
from longhaul.turns.deliver import Delivery, IncomingMessage

router = APIRouter(prefix="/v1", tags=["messages"], responses=RESPONSES)
STREAM: Mapping[str, Any] = {
    "description": "The answer: the AI SDK's UI message stream, version 1.",
    "content": {"text/event-stream": {"example": 'data: {"type":"start","messageId":"0c1c8d6e"}\n\n'}},
    "headers": {
        RUN_ID: {"description": "The message's id, for `GET /v1/chat/{id}/stream`.", "schema": {"type": "string"}}
    },
}
RESUMED: Mapping[str, Any] = {
    **STREAM,
    "headers": {
        **STREAM["headers"],
        TAIL_INDEX: {
            "description": "With a negative `startIndex`: the index of the newest part.",
            "schema": {"type": "integer"},
        },
    },
}
Version = Annotated[
    Literal["5", "6", "7"] | None, Query(description="The client's major version of the `ai` package, if it is known.")
]
ChatId = Annotated[str, Path(max_length=140, pattern=ID, description="A session, or the id of an assistant's message.")]
HISTORY_ROWS = 1000
#: Versions that know `tool-approval-request`. Others are not asked, and their streams stay open meanwhile.
ASKING = ("6", "7")
#: A turn that ended so recently is shown to who resumes: it may have ended since that client loaded the history.
ENDED_LATELY_S = 30
NOTHING_RUNS = Response(status_code=204)


@dataclass(frozen=True)
class HistoryPage:
    """Which page of a history is wanted: `limit` stored rows before a sequence, and how they are shown."""

    limit: int
    before_sequence: int | None
    details: bool
    ai: str | None


def _take_back(version: str | None) -> TakeBack:
    return TakeBack.RESET_STEP if version == "7" else TakeBack.NOT_AT_ALL


@router.post(
    "/chat",
    response_model=None,
    summary="Chat, for the AI SDK",
    responses={200: dict(STREAM), **CONFLICT, **TOO_LARGE, **TOO_MANY},
    openapi_extra=body_schema(ChatMessages, required=True),
)
async def chat(
    user: CurrentUser,
    deps: Deps,
    request: Request,
    slot: StreamSlot,
    ai: Version = None,
    on_disconnect: Annotated[
        Literal["continue", "stop"], Query(description="What it means when the client goes before the answer's end.")
    ] = "continue",
) -> Response:
    """The last message is sent. If its id is known: the same text again is the same message, another text is an edit,
    and with `regenerate-message` it is answered again. Edited and regenerated, what followed is replaced.

    A message that joins a running turn gets a stream as well, which shows the turn from there on.

    An assistant's message at the end brings answers: to approvals (`addToolApprovalResponse`), to questions of
    `ask_user` and to calls of the client's own tools (`addToolOutput`). When the turn waits for a client's tool, or,
    with `ai=6` or `7`, for its person, the stream ends, and the answer of this request goes on with the same message.
    """
    chat = parse_chat(await read_body(request, MESSAGE_BODY_MAX))
    slot.take()
    if isinstance(chat, ChatReply):
        return await continue_chat(deps, user, chat, ChatView(_take_back(ai), asks=ai in ASKING))
    session = await _session_of(deps, user, chat)
    await answer_before(deps, user, session.id, chat)
    message, delivery = await _send(deps, user, session, chat)
    view = ChatView(
        _take_back(ai),
        follow_up=None if delivery.started else message.id,
        stop_when_left=on_disconnect == "stop",
        asks=ai in ASKING,
    )
    return await ChatEvents(deps, session.id, delivery.turn_id, view).response()


async def _session_of(deps: Dependencies, user: str, chat: Chat) -> Session:
    """The session that a body names; that of a turn whose answer the client has; or else a new one."""
    if chat.session_id is not None:
        return await own_or_new_session(deps, user, chat.session_id)
    for turn_id in chat.known_turns[:1]:
        async with deps.database.read() as connection:
            return await sessions.of_turn(connection, turn_id, user)
    return await own_or_new_session(deps, user, str(uuid4()))


async def _send(deps: Dependencies, user: str, session: Session, chat: Chat) -> tuple[IncomingMessage, Delivery]:
    """Send the message, or the new version of it, under the id that the stored message has."""
    message = chat.message
    async with deps.database.read() as connection:
        known = await versions.of_message(connection, session.id, message.id)
    if not known:
        return message, await deliver(deps, user, session, message, files=chat.files, client_tools=chat.client_tools)
    newest = versions.current(known) or known[-1]
    if chat.regenerate or newest.content != replace_unstorable(message.text):
        return await _replace(deps, user, session, chat, len(known))
    same = IncomingMessage(newest.client_message_id or message.id, newest.content, newest.context)
    return same, await deliver(deps, user, session, same)


async def _replace(
    deps: Dependencies, user: str, session: Session, chat: Chat, number: int
) -> tuple[IncomingMessage, Delivery]:
    message = chat.message
    version = dataclasses.replace(message, id=row_id(session.id, "version", message.id, number))
    return version, await replace(
        deps, user, session, version, of=message.id, files=chat.files, client_tools=chat.client_tools
    )


@router.get(
    "/chat/{chat_id}/stream",
    response_model=None,
    summary="Resume a chat's stream, for the AI SDK",
    responses={
        200: dict(RESUMED),
        204: {"description": "Nothing runs; also where there is no such chat of this user."},
        **TOO_MANY,
    },
)
async def resume_chat(
    chat_id: ChatId,
    user: CurrentUser,
    deps: Deps,
    slot: StreamSlot,
    ai: Version = None,
    start_index: Annotated[
        int | None,
        Query(alias="startIndex", ge=-(2**31), le=2**31 - 1, description="Of `WorkflowChatTransport`: parts to skip."),
    ] = None,
) -> Response:
    """The answer from its beginning: what was said before comes at once, in few large deltas.

    By a session's id: the turn that runs now, or ended in the last 30 s, with the messages that begin with follow-ups.
    A client that has a message of that id already puts this one in its place. By a message's id
    (`x-workflow-run-id`): that message, also when its turn has ended.
    """
    take_back = _take_back(ai)
    try:
        session = await deps.sessions.get(chat_id, user)
    except NotFoundError:  # then it is a message's id, or unknown
        turn_id, follow_up = of_message(chat_id)
        try:
            async with deps.database.read() as connection:
                owner = await sessions.of_turn(connection, turn_id, user)
        except NotFoundError:
            return NOTHING_RUNS  # a page resumes a new chat before its first message
        slot.take()
        view = ChatView(
            take_back, follow_up, join_deltas=start_index is None, start_index=start_index or 0, asks=ai in ASKING
        )
        return await ChatEvents(deps, owner.id, turn_id, view).response()
    active = await deps.turns.active(session.id)
    resumed = active.turn_id if active is not None else await _ended_lately(deps, session.id)
    if resumed is None:
        return NOTHING_RUNS
    slot.take()
    follow_up = await _newest_follow_up(deps, resumed) if ai == "5" else None
    view = ChatView(
        take_back,
        follow_up,
        all_messages=ai != "5",
        join_deltas=start_index is None,
        start_index=start_index or 0,
        asks=ai in ASKING,
    )
    return await ChatEvents(deps, session.id, resumed, view).response()


async def _ended_lately(deps: Dependencies, session_id: str) -> str | None:
    """The session's newest turn, if it has ended in the last `ENDED_LATELY_S`."""
    async with deps.database.read() as connection:
        newest = await turns.newest(connection, session_id)
    if newest is None or newest.ended_at is None:
        return None
    return newest.turn_id if utc_now() - newest.ended_at < timedelta(seconds=ENDED_LATELY_S) else None


async def _newest_follow_up(deps: Dependencies, turn_id: str) -> str | None:
    """Version 5 cannot tell two messages in one stream apart, so it gets the newest alone."""
    async with deps.database.read() as connection:
        rows = await conversation.rows_of_turn(connection, turn_id)
    return next((row.client_message_id for row in reversed(rows) if row.kind == "follow_up"), None)


@router.get(
    "/sessions/{session_id}/ui-messages", tags=["sessions"], summary="The conversation as the AI SDK's UIMessage[]"
)
async def ui_history(
    session: OwnSession,
    deps: Deps,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=HISTORY_ROWS, description="Of stored rows, the newest.")] = HISTORY_ROWS,
    before_sequence: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    details: Annotated[  # a query parameter
        bool, Query(description="Also durations of parts, summaries, and which messages have versions.")
    ] = False,
    ai: Version = None,
) -> list[dict[str, Any]]:
    """For `useChat({messages})`: the messages that a client shows which has read every stream.

    A page begins with the beginning of a turn, so it may hold more rows than `limit`. If older messages exist, the
    header `Link` with `rel="next"` has the address of the page before this one.
    """
    wanted = HistoryPage(limit, before_sequence, details=details, ai=ai)
    return await history_page(deps, session, wanted, f"/v1/sessions/{session.id}/ui-messages", response)


async def history_page(
    deps: Dependencies, session: SessionRecord, wanted: HistoryPage, path: str, response: Response
) -> list[dict[str, Any]]:
    """One page of a session's messages; `response` gets the address of the page before, which is below `path`."""
    async with deps.database.read() as connection:
        rows, more = await conversation.page_of_whole_turns(
            connection, session.id, session.user_id, wanted.limit, wanted.before_sequence
        )
        found = await turns.by_ids(connection, {row.turn_id for row in rows if row.turn_id is not None})
        asked = await parked.approvals_of_session(connection, session.id) if wanted.ai in ASKING else []
    if more:
        query: dict[str, Any] = {"limit": wanted.limit, "before_sequence": rows[0].sequence}
        query |= {"details": "true"} if wanted.details else {}
        query |= {"ai": wanted.ai} if wanted.ai is not None else {}
        response.headers["link"] = f'<{path}?{urlencode(query)}>; rel="next"'
    return with_approvals(ui_messages(rows, found, details=wanted.details), asked)


@router.get("/sessions/{session_id}/messages/{message_id}/versions", summary="Versions of a message")
async def message_versions(
    session: OwnSession, message_id: Annotated[str, Path(max_length=64, pattern=ID)], deps: Deps
) -> MessageVersions:
    """What was edited or answered again is kept, with its answers."""
    async with deps.database.read() as connection:
        found = await versions.of_message(connection, session.id, message_id)
        if not found:
            raise NotFoundError(f"There is no message {message_id} in session {session.id}.")
        rows = {row.id: await conversation.rows_of_turn(connection, row.turn_id) for row in found if row.turn_id}
        branches = {
            row.id: await _branch(connection, session.id, row.replaced_by)
            for row in found
            if row.replaced_by is not None
        }
    now = versions.current(found)
    shown = [
        MessageVersion(
            message_id=row.client_message_id or row.id,
            content=row.content,
            turn_id=row.turn_id,
            current=row is now,
            created_at=row.created_at,
            messages=[StoredMessage.model_validate(one) for one in rows.get(row.id, ())],
            ui_messages=branches.get(row.id, []),
        )
        for row in found
    ]
    return MessageVersions(data=shown, versions=shown, has_more=False, next_cursor=None)


async def _branch(connection: Connection, session_id: str, replaced_by: str) -> list[dict[str, Any]]:
    """What the turn `replaced_by` has taken out of the conversation: a message and what followed it then."""
    rows = await conversation.replaced_by_turn(connection, session_id, replaced_by)
    found = await turns.by_ids(connection, {row.turn_id for row in rows if row.turn_id is not None})
    return ui_messages(rows, found, details=True)
