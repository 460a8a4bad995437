"""Ask and wait: one call for scripts, cron and tests."""

import logging
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from api.delivery import deliver, taken
from api.dependencies import CurrentUser, Deps, IdempotencyKey, PollSlot, SessionId
from api.problems import CONFLICT, RESPONSES, TOO_LARGE, TOO_MANY
from api.request_body import MESSAGE_BODY_MAX, PostMessage, body_schema, parse_message, read_body
from api.schemas.messages import Asked, AskedCall, Taken
from api.turn_end import TurnEnd, end_of_turn
from longhaul.db import sessions
from longhaul.errors import UnavailableError

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1", tags=["messages"], responses=RESPONSES)
WAIT_MAX_S = 600


@router.post(
    "/sessions/{session_id}/ask",
    response_model=Asked,
    summary="Send a message and wait for the answer",
    responses={
        202: {
            "description": "It runs, or its end cannot be read: ask again by `message_id`, or poll `progress_url`.",
            "model": Taken,
            "headers": {"location": {"description": "`progress_url`.", "schema": {"type": "string"}}},
        },
        **CONFLICT,
        **TOO_LARGE,
        **TOO_MANY,
    },
    openapi_extra=body_schema(PostMessage, required=True),
)
async def ask(
    session_id: SessionId,
    user: CurrentUser,
    deps: Deps,
    request: Request,
    slot: PollSlot,
    key: IdempotencyKey = None,
    wait: Annotated[float, Query(ge=0, le=WAIT_MAX_S, description="Seconds to wait for the turn's end.")] = 300,
) -> Response:
    """The last text of the turn that takes the message, its tool calls and its usage.

    Leaving does not stop the turn, and the same `message_id` again is the same question: it gets the same answer.
    """
    async with deps.database.read() as connection:
        session = await sessions.get(connection, session_id, user)
    sent = parse_message(await read_body(request, MESSAGE_BODY_MAX), session_id, key)
    message = sent.message
    if wait:
        slot.take()
    delivery = await deliver(deps, user, session, message, files=sent.files, client_tools=sent.client_tools)
    try:
        ended = await end_of_turn(deps, session_id, delivery.turn_id, message.id, wait)
    except UnavailableError as error:
        # The message is safe in Temporal. A failure would make a sender without a message id send it again.
        log.warning("the end of turn %s cannot be read: %s", delivery.turn_id, error)
        ended = None
    if ended is not None:
        return JSONResponse(_asked(ended, session_id, message.id).model_dump(mode="json"))
    told = taken(deps, session_id, message.id, delivery)
    return JSONResponse(told.model_dump(), 202, {"location": told.progress_url})


def _asked(ended: TurnEnd, session_id: str, message_id: str) -> Asked:
    results = ended.results
    calls = []
    for row in ended.rows:
        for call in row.tool_calls or ():
            result = results.get((row.round, call["id"]))
            calls.append(
                AskedCall(
                    id=call["id"],
                    name=call["function"]["name"],
                    arguments=call["function"]["arguments"],
                    output=result.content if result is not None else None,
                    is_error=result.is_error if result is not None else False,
                )
            )
    progress = ended.progress
    return Asked(
        session_id=session_id,
        turn_id=progress.turn_id,
        message_id=message_id,
        status=progress.status,
        text=ended.text,
        tool_calls=calls,
        usage=progress.usage,
        duration_ms=progress.duration_ms,
        error=progress.error,
    )
