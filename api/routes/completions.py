"""OpenAI's Chat Completions: `base_url` at Longhaul gives a client that exists a durable turn."""

import logging
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from api.chat_stream import ChatEvents, ChatView, CutWhenUnfinished
from api.completion_parts import CompletionParts
from api.completions_body import ChatCompletion, invalid_results, parse_completion
from api.delivery import deliver, own_or_new_session
from api.dependencies import CurrentUser, Dependencies, Deps, IdempotencyKey, StreamSlot
from api.problems import CONFLICT, RESPONSES, TOO_LARGE, TOO_MANY, Problem, ProblemError
from api.request_body import MESSAGE_BODY_MAX, body_schema, read_body
from api.schemas.models import Completion
from api.sse import DONE, KEEP_ALIVE
from api.turn_end import end_of_turn
from longhaul.contracts import ParkKind, Usage
from longhaul.db import acceptance, conversation, messages, parked, versions
from longhaul.db.busy import OnBusy
from longhaul.db.messages import NewMessage, row_id
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import Answer, ParkedRow
from longhaul.db.sessions import Session
from longhaul.errors import AnsweredError, UnavailableError
from longhaul.streams.events import Part
from longhaul.tools.ask_user import ask_user
from longhaul.turns.deliver import IncomingMessage

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
    """What a completion answers: a message that was delivered, or results of the caller's tools.

    `answered`: the calls that these results are for, all of one round; empty: it answers a message.
    """

    session_id: str
    turn_id: str
    message_id: str
    model: str
    view: ChatView
    answered: tuple[ParkedRow, ...] = ()

    @property
    def completion_id(self) -> str:
        """Each answer within a turn has its own."""
        return f"chatcmpl-{self.turn_id}" + (f"-{self.answered[0].round}" if self.answered else "")


class CutOffError(ProblemError):
    """This server stops while the turn runs. Without a key, the same request would send its message twice; results of
    the caller's tools may be sent again."""

    def __init__(self, asked: Asked, *, repeatable: bool) -> None:
        turn = f"/v1/sessions/{asked.session_id}/turns/{asked.turn_id}"
        remedy = "Send the same request again, with the same Idempotency-Key." if repeatable else f"See GET {turn}."
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

    Calls of the caller's own `tools` end the answer with `tool_calls`. The next request brings their results in `tool`
    messages, and goes on with the same turn.
    """
    body = parse_completion(await read_body(request, MESSAGE_BODY_MAX))
    slot.take()
    asked = await (_ask(deps, user, body, key) if body.asked else _go_on(deps, user, body))
    events = ChatEvents(deps, asked.session_id, asked.turn_id, asked.view)
    shown = CompletionParts([row.tool_call_id for row in asked.answered])
    headers = {"x-longhaul-session-id": asked.session_id, "x-longhaul-turn-id": asked.turn_id}
    if body.stream:
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        chunks = _chunks(deps, asked, shown, events, include_usage=include_usage)
        headers |= {"content-type": "text/event-stream", **NO_BUFFER}
        return CutWhenUnfinished(chunks, lambda: events.ended() or bool(shown.calls), headers)
    texts, said = Texts(), ""
    async with aclosing(events.parts()) as batches:
        async for parts in batches:
            said += "".join(delta.get("content", "") for delta in texts.of(shown.of(parts)))
            if shown.calls or (not parts and await request.is_disconnected()):
                break
    if not texts.finished and not shown.calls:
        raise CutOffError(asked, repeatable=key is not None or bool(asked.answered))
    if texts.error is not None:
        raise TurnFailedError(texts.error)
    message: dict[str, Any] = {"role": "assistant", "content": said}
    if shown.calls:
        message |= {"content": said or None, "tool_calls": [call.as_openai() for call in shown.calls]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if shown.calls else "stop"}
    usage = _usage(await _usage_of(deps, asked, shown))
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
    declared = body.declared
    await _answer_before(deps, user, session.id, message.id, body)
    delivery = await deliver(deps, user, session, message, client_tools=declared)
    view = ChatView(follow_up=None if delivery.started else message.id)
    return Asked(session.id, delivery.turn_id, message.id, body.model, view)


async def _answer_before(deps: Dependencies, user: str, session_id: str, message_id: str, body: ChatCompletion) -> None:
    """Take the results that come with a new message. The caller's other calls that wait are skipped: in OpenAI's
    protocol their results can come no more, and the model is told so.
    """
    async with deps.database.read() as connection:
        waiting = await parked.client_calls_waiting(connection, session_id)
        if not waiting or await versions.of_message(connection, session_id, message_id):
            return
    results = body.results
    for row in waiting:
        if row.id in results:
            with suppress(AnsweredError):
                await deps.answers.answer(row.id, user, Answer(ParkedStatus.ANSWERED, results[row.id]))
    if body.on_busy is not OnBusy.REJECT:  # else the message will be refused
        await deps.answers.skip_client_calls(user, (row for row in waiting if row.id not in results))


async def _go_on(deps: Dependencies, user: str, body: ChatCompletion) -> Asked:
    """Take the results of the caller's tools; the turn that has called them goes on.

    Raises:
        ProblemError: 422, a result is for no call of this turn of this user.
        AnsweredError: a call has another result, or waits no longer.
    """
    rows: list[ParkedRow] = []
    async with deps.database.read() as connection:
        for call in body.results:
            row = await parked.get(connection, call)
            if row is None or row.user_id != user or row.kind is not ParkKind.CLIENT_TOOL:
                raise invalid_results(f"there is no tool call {call[:64]!r} that waits for its caller")
            rows.append(row)
    if len({(row.turn_id, row.round) for row in rows}) > 1:
        raise invalid_results("the results are for calls of several answers; send those of the newest one")
    newest = rows[0]
    named = body.metadata.session_id if body.metadata is not None else None
    if named not in (None, newest.session_id):
        raise invalid_results(f"the calls are not of the session {named}")
    for row in rows:
        await deps.answers.answer(row.id, user, Answer(ParkedStatus.ANSWERED, body.results[row.id]))
    view = ChatView(all_messages=True)
    return Asked(newest.session_id, newest.turn_id, "", body.model, view, tuple(rows))


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
    return {"id": asked.completion_id, "object": kind, "created": int(time.time()), "model": asked.model}


async def _chunks(
    deps: Dependencies, asked: Asked, shown: CompletionParts, events: ChatEvents, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    head, texts = _head(asked, "chat.completion.chunk"), Texts()

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return b"data: %b\n\n" % orjson.dumps({**head, "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    sent_at = time.monotonic()
    async with aclosing(events.parts()) as batches:
        async for parts in batches:
            made = b"".join(chunk(delta) for delta in texts.of(shown.of(parts)))
            now = time.monotonic()
            if made or now - sent_at >= deps.settings.stream_keep_alive:
                sent_at = now
                yield made or KEEP_ALIVE
            if shown.calls:
                break
    if not texts.finished and not shown.calls:
        return
    if texts.error is not None:
        error = {"message": texts.error, "type": "turn_failed", "code": "turn_failed", "param": None}
        yield b"data: %b\n\n" % orjson.dumps({"error": error}) + DONE
        return
    for index, call in enumerate(shown.calls):
        yield chunk({"tool_calls": [{"index": index, **call.as_openai()}]})
    yield chunk({}, "tool_calls" if shown.calls else "stop")
    if include_usage:
        usage = _usage(await _usage_of(deps, asked, shown))
        yield b"data: %b\n\n" % orjson.dumps({**head, "choices": [], "usage": usage})
    yield DONE


async def _usage_of(deps: Dependencies, asked: Asked, shown: CompletionParts) -> Usage:
    """The usage of the whole turn, whose end is stored before its stream ends; zeros if it cannot be read now.

    Of an answer that is one of several in a turn, it is that of its own model calls. The answer is there, so no failure
    may make the client ask again.
    """
    if shown.calls or asked.answered:
        return shown.usage
    try:
        ended = await end_of_turn(deps, asked.session_id, asked.turn_id, asked.message_id, 1)
    except UnavailableError as error:
        log.warning("the usage of turn %s cannot be read: %s", asked.turn_id, error)
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
