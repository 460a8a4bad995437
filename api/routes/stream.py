"""Send a message and stream its turn; resume a stream."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response

from api.delivery import deliver, taken
from api.dependencies import ID, CurrentUser, Dependencies, Deps, IdempotencyKey, OwnSession, SessionId, StreamSlot
from api.ownership import SessionRecord
from api.problems import CONFLICT, RESPONSES, TOO_LARGE, TOO_MANY
from api.request_body import MESSAGE_BODY_MAX, PostMessage, UiMessages, body_schema, parse_message, read_body
from api.schemas.messages import Queued, Taken
from api.slots import Slot
from api.sse import TurnEvents
from longhaul.db import sessions, turns
from longhaul.errors import NotFoundError
from longhaul.streams.events import FINISH_ID
from longhaul.streams.feed import StreamLostError
from longhaul.streams.reader import BEGINNING, has_entry, may_have_had_entry
from longhaul.turns.deliver import Delivery, IncomingMessage

router = APIRouter(prefix="/v1", tags=["messages"], responses=RESPONSES)
EVENT_ID = r"^[0-9]{1,20}-[0-9]{1,20}$"
BODY = body_schema(
    PostMessage,
    UiMessages,
    examples={
        "message": {"value": {"message": "What is 17 * 23?"}},
        "ai-sdk": {
            "value": {
                "id": "chat-1",
                "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}],
                "trigger": "submit-message",
            }
        },
    },
)
STREAM = {
    "description": "The turn's events: the AI SDK's UI message stream, version 1.",
    "content": {
        "text/event-stream": {
            "example": 'id: 1-0\ndata: {"type":"start","messageId":"0c1c8d6e-2f0b-4b55-8a55-0f4f7d8f9a10"}\n\n',
        }
    },
}


async def _deliver(
    deps: Dependencies, session_id: str, user: str, request: Request, key: str | None, slot: Slot | None = None
) -> tuple[IncomingMessage, Delivery]:
    """Check owner, body and limits, then deliver. The owner comes first: a foreign session reads as missing.

    A new turn that is to be streamed takes the `slot`.
    """
    async with deps.database.read() as connection:
        session = await sessions.get(connection, session_id, user)
    sent = parse_message(await read_body(request, MESSAGE_BODY_MAX), session_id, key)
    return sent.message, await deliver(deps, user, session, sent.message, slot, sent.files, sent.client_tools)


@router.post(
    "/sessions/{session_id}/stream",
    response_model=None,
    summary="Send a message and stream the answer",
    responses={
        200: STREAM,
        202: {"description": "A turn runs; the message joins it.", "model": Queued},
        **CONFLICT,
        **TOO_LARGE,
        **TOO_MANY,
    },
    openapi_extra=BODY,
)
async def post_and_stream(
    session_id: SessionId,
    user: CurrentUser,
    deps: Deps,
    request: Request,
    slot: StreamSlot,
    key: IdempotencyKey = None,
) -> Response:
    """Idle: the turn's events. Busy: 202, and the running turn's stream shows the answer.

    Leaving never stops a turn. The same `message_id` again is the same message: a repeated POST finds its turn.
    """
    message, delivery = await _deliver(deps, session_id, user, request, key, slot)
    if delivery.started:
        return TurnEvents(deps, session_id, delivery.turn_id).response()
    queued = Queued(
        turn_id=delivery.turn_id,
        message_id=message.id,
        buffer_length=delivery.waiting,
        max_buffer_length=deps.settings.max_pending_messages,
    )
    return JSONResponse(queued.model_dump(), 202, {"x-longhaul-turn-id": delivery.turn_id})


@router.post(
    "/sessions/{session_id}/messages",
    status_code=202,
    summary="Send a message and poll",
    responses={**CONFLICT, **TOO_LARGE, **TOO_MANY},
    openapi_extra=BODY,
)
async def post_message(
    session_id: SessionId,
    user: CurrentUser,
    deps: Deps,
    request: Request,
    response: Response,
    key: IdempotencyKey = None,
) -> Taken:
    """The same without a stream, for programs: poll `progress_url`, best with `wait`."""
    message, delivery = await _deliver(deps, session_id, user, request, key)
    response.headers["x-longhaul-turn-id"] = delivery.turn_id
    return taken(deps, session_id, message.id, delivery)


@router.get(
    "/sessions/{session_id}/stream",
    response_model=None,
    summary="Resume the stream of the running turn",
    responses={200: STREAM, 204: {"description": "Nothing runs."}, **TOO_MANY},
)
async def resume(
    session: OwnSession,
    deps: Deps,
    slot: StreamSlot,
    turn_id: Annotated[
        str | None, Query(max_length=64, pattern=ID, description="A certain turn, also one that has ended.")
    ] = None,
    after: Annotated[str | None, Query(pattern=EVENT_ID, description="As `Last-Event-ID`.")] = None,
    last_event_id: Annotated[str | None, Header(pattern=EVENT_ID, description="Go on behind this event.")] = None,
) -> Response:
    """From `Last-Event-ID` (or `after`), else from the turn's start. A client that was cut off just before a turn's
    end gets what it missed."""
    after = last_event_id or after
    turn_to_stream = await turn_to_resume(deps, session, turn_id, after)
    if turn_to_stream is None:
        return Response(status_code=204)
    slot.take()
    return TurnEvents(deps, session.id, turn_to_stream, after).response()


async def turn_to_resume(
    deps: Dependencies, session: SessionRecord, turn_id: str | None, after: str | None
) -> str | None:
    """The turn whose stream goes on behind the event `after`; None: nothing runs, and that client missed no end.

    Raises:
        NotFoundError: the session has no turn `turn_id`.
    """
    if turn_id is not None:
        if not await deps.turns.exists(session.id, turn_id):
            raise NotFoundError(f"There is no turn {turn_id} of session {session.id}.")
        return turn_id
    active = await deps.turns.active(session.id)
    if active is not None:
        ended_for_client = after == FINISH_ID and await _stream_has(deps, active.turn_id, FINISH_ID)
        return None if ended_for_client else active.turn_id
    if after is None or after == FINISH_ID:
        return None
    async with deps.database.read() as connection:
        newest = await turns.newest(connection, session.id)
    return newest.turn_id if newest is not None and await _left_before_end(deps, newest.turn_id, after) else None


async def _left_before_end(deps: Dependencies, turn_id: str, after: str) -> bool:
    """Whether a client that has seen the event `after` was watching this turn, which has ended since."""
    if after == BEGINNING:
        return True  # it was watching rows, and would have FINISH_ID if it had seen their end
    try:
        return await may_have_had_entry(deps.feeds.redis, turn_id, after)
    except StreamLostError:
        return False


async def _stream_has(deps: Dependencies, turn_id: str, entry_id: str) -> bool:
    try:
        return await has_entry(deps.feeds.redis, turn_id, entry_id)
    except StreamLostError:
        return False
