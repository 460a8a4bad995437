"""OpenAI's Chat Completions: `base_url` at Longhaul gives a client that exists a durable turn."""

import logging
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from api.chat_stream import ChatEvents, ChatView, CutWhenUnfinished
from api.completions_body import ChatCompletion, parse_completion
from api.delivery import deliver, own_or_new_session
from api.dependencies import CurrentUser, Dependencies, Deps, IdempotencyKey, StreamSlot
from api.problems import CONFLICT, RESPONSES, TOO_LARGE, TOO_MANY, Problem, ProblemError
from api.request_body import MESSAGE_BODY_MAX, body_schema, read_body
from api.schemas.models import Completion
from api.sse import DONE, KEEP_ALIVE
from api.turn_end import end_of_turn
from longhaul.contracts import Usage
from longhaul.db import acceptance, conversation, messages
from longhaul.db.messages import NewMessage, row_id
from longhaul.db.sessions import Session
from longhaul.errors import UnavailableError
from longhaul.streams.events import Part
from longhaul.tools.ask_user import ask_user
from longhaul.turns.deliver import Delivery, IncomingMessage

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1", tags=["messages"], responses=RESPONSES)
NO_BUFFER = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
BETWEEN_TEXTS = "\n\n"
STOPPED = "The turn was stopped."
UNANSWERED = "The turn ended without an answer to this message."
FAILED: dict[int | str, dict[str, Any]] = {
    502: {"description": "The turn failed; asking again with the same key gets the same.", "model": Problem}
}


class TurnFailedError(ProblemError):
    """The turn ended without an answer. The same request would only be told the same."""

    def __init__(self, why: str) -> None:
        super().__init__(502, "turn-failed", why, headers={"x-should-retry": "false"})


@dataclass(frozen=True)
class Asked:
    """A delivered message of a completion."""

    session: Session
    message: IncomingMessage
    delivery: Delivery
    model: str


class CutOffError(ProblemError):
    """This server stops while the turn runs. Without a key, the same request would send its message twice."""

    def __init__(self, asked: Asked, *, repeatable: bool) -> None:
        turn = f"/v1/sessions/{asked.session.id}/turns/{asked.delivery.turn_id}"
        remedy = "Send the same request with the same Idempotency-Key." if repeatable else f"See GET {turn}."
        super().__init__(
            503,
            "unavailable" if repeatable else "answer-cut-off",
            f"This server restarts; the turn goes on, and nothing is lost. {remedy}",
            headers={"Retry-After": "5"} if repeatable else {"x-should-retry": "false"},
        )


class Texts:
    """What a completion says, out of a chat's parts: all texts of the turn, with an empty line between them."""

    def __init__(self) -> None:
        self.error: str | None = None
        self.finished = False
        self._blocks = 0

    def of(self, parts: Iterable[Part]) -> Iterable[dict[str, str]]:
        """The deltas that these parts make."""
        for part in parts:
            match part["type"]:
                case "text-start":
                    self._blocks += 1
                    if self._blocks > 1:
                        yield {"content": BETWEEN_TEXTS}
                case "text-delta":
                    yield {"content": part["delta"]}
                case "reasoning-delta":
                    yield {"reasoning_content": part["delta"]}
                case "error":
                    self.error = part["errorText"]
                case "abort":
                    self.error = STOPPED
                case "finish":
                    self.finished = True
                    if not self._blocks:
                        self.error = self.error or UNANSWERED


@router.post(
    "/chat/completions",
    response_model=Completion,
    summary="Chat Completions, for OpenAI's clients",
    responses={
        200: {
            "description": "The answer; with `stream`, as `chat.completion.chunk` events.",
            "content": {"text/event-stream": {"example": "data: [DONE]\n\n"}},
        },
        **CONFLICT,
        **TOO_LARGE,
        **TOO_MANY,
        **FAILED,
    },
    openapi_extra=body_schema(ChatCompletion, required=True),
)
async def complete(
    user: CurrentUser,
    deps: Deps,
    request: Request,
    slot: StreamSlot,
    key: IdempotencyKey = None,
) -> Response:
    """The last message is answered by a turn with Longhaul's tools. In a session that has messages, only the last one
    counts; a new session begins with those before it. Leaving never stops the turn.
    """
    body = parse_completion(await read_body(request, MESSAGE_BODY_MAX))
    slot.take()
    asked = await _ask(deps, user, body, key)
    view = ChatView(follow_up=None if asked.delivery.started else asked.message.id)
    events = ChatEvents(deps, asked.session.id, asked.delivery.turn_id, view)
    headers = {"x-longhaul-session-id": asked.session.id, "x-longhaul-turn-id": asked.delivery.turn_id}
    if body.stream:
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        chunks = _chunks(deps, asked, events, include_usage=include_usage)
        return CutWhenUnfinished(chunks, events, {"content-type": "text/event-stream", **NO_BUFFER, **headers})
    texts, said = Texts(), ""
    async with aclosing(events.parts()) as batches:
        async for parts in batches:
            said += "".join(delta.get("content", "") for delta in texts.of(parts))
            if not parts and await request.is_disconnected():
                break
    if not texts.finished:
        raise CutOffError(asked, repeatable=key is not None)
    if texts.error is not None:
        raise TurnFailedError(texts.error)
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    usage = _usage(await _usage_of(deps, asked))
    return JSONResponse({**_head(asked, "chat.completion"), "choices": [choice], "usage": usage}, headers=headers)


async def _ask(deps: Dependencies, user: str, body: ChatCompletion, key: str | None) -> Asked:
    if deps.settings.choose(body.model) is None:
        raise ProblemError(404, "model-not-found", f"There is no model {body.model}; GET /v1/models lists them.")
    session_id = str(uuid4())
    if body.metadata is not None and body.metadata.session_id is not None:
        session_id = body.metadata.session_id
    elif body.user:
        session_id = row_id("openai-user", user, body.user)
    elif key is not None:
        session_id = row_id("openai-key", user, key)
    session = await own_or_new_session(
        deps, user, session_id, system_context=body.system or None, deny_tools=(ask_user.name,)
    )
    if body.history:
        await _begin_with(deps, session, body)
    message = IncomingMessage(
        row_id(session.id, "openai", key) if key is not None else str(uuid4()),
        body.asked,
        model=body.model,
        effort=body.reasoning_effort,
        on_busy=body.on_busy,
    )
    return Asked(session, message, await deliver(deps, user, session, message), body.model)


async def _begin_with(deps: Dependencies, session: Session, body: ChatCompletion) -> None:
    """Let a session without messages begin with what was said before."""
    rows = [
        NewMessage(row_id(session.id, "said before", number), one.role, one.text)
        for number, one in enumerate(body.history)
    ]
    async with deps.database.write() as connection:
        await messages.lock_session(connection, session.id)
        waits = await acceptance.list_waiting(connection, session.id)
        if not waits and not await conversation.length(connection, session.id):
            await messages.append(connection, session.id, rows)


def _head(asked: Asked, kind: str) -> dict[str, Any]:
    answer_id = f"chatcmpl-{asked.delivery.turn_id}"
    return {"id": answer_id, "object": kind, "created": int(time.time()), "model": asked.model}


async def _chunks(
    deps: Dependencies, asked: Asked, events: ChatEvents, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    head, texts = _head(asked, "chat.completion.chunk"), Texts()

    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return b"data: %b\n\n" % orjson.dumps({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    sent_at = time.monotonic()
    async with aclosing(events.parts()) as batches:
        async for parts in batches:
            made = b"".join(chunk(delta) for delta in texts.of(parts))
            now = time.monotonic()
            if made or now - sent_at >= deps.settings.stream_keep_alive:
                sent_at = now
                yield made or KEEP_ALIVE
    if not texts.finished:
        return
    if texts.error is not None:
        error = {"message": texts.error, "type": "turn_failed", "code": "turn_failed", "param": None}
        yield b"data: %b\n\n" % orjson.dumps({"error": error}) + DONE
        return
    yield chunk({}, "stop")
    if include_usage:
        usage = _usage(await _usage_of(deps, asked))
        yield b"data: %b\n\n" % orjson.dumps({**head, "choices": [], "usage": usage})
    yield DONE


async def _usage_of(deps: Dependencies, asked: Asked) -> Usage:
    """The usage of the whole turn, whose end is stored before its stream ends; zeros if it cannot be read now.

    The answer is there, so no failure may make the client ask again.
    """
    try:
        ended = await end_of_turn(deps, asked.session.id, asked.delivery.turn_id, asked.message.id, 1)
    except UnavailableError as error:
        log.warning("the usage of turn %s cannot be read: %s", asked.delivery.turn_id, error)
        return Usage()
    return ended.progress.usage if ended is not None else Usage()


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_creation_tokens": usage.cache_creation_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
