"""The Responses API over the same answers: reading its requests as strictly as OpenAI does, and writing its events."""

import itertools
from collections.abc import Iterator
from hashlib import blake2b
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, Field, model_validator

from offline_model.answer import Answer
from offline_model.conversation import ToolCall
from offline_model.request import ChatRequest
from offline_model.response import call_id, pieces_of, usage_of

#: What encrypted reasoning of this server begins with.
SEAL = "offline:"
_SHORT = {"length": "max_output_tokens", "content_filter": "content_filter"}


class RefusedError(ValueError):
    """OpenAI would not accept a request. `param`, `code`: as in its error."""

    def __init__(self, message: str, param: str, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class _Said(BaseModel):
    """A message. Its content is a text, or parts of texts and images."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]


class _Called(BaseModel):
    type: Literal["function_call"]
    call_id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    arguments: str


class _Output(BaseModel):
    type: Literal["function_call_output"]
    call_id: str
    output: str


class _Reasoning(BaseModel):
    type: Literal["reasoning"]
    id: str
    summary: list[dict[str, Any]]
    encrypted_content: str


def _kind(item: Any) -> Any:
    return {"type": "message", **item} if isinstance(item, dict) else item


class _Item(BaseModel):
    item: Annotated[_Said | _Called | _Output | _Reasoning, Field(discriminator="type")]

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, item: Any) -> Any:
        return {"item": _kind(item)}


class _Tool(BaseModel):
    type: Literal["function"]
    name: str = Field(min_length=1)
    strict: Literal[False]


class _Reasons(BaseModel):
    effort: str = ""
    summary: Literal["auto", "concise", "detailed"] | None = None
    max_tokens: int | None = None


class ResponsesRequest(BaseModel):
    """The fields of a request that are read. Schemas are not strict, and nothing is to be stored."""

    model: str = Field(min_length=1)
    input: list[_Item] = Field(min_length=1)
    instructions: str = ""
    tools: list[_Tool] = []
    stream: Literal[True]
    store: Literal[False]
    include: list[Literal["reasoning.encrypted_content"]] = []
    reasoning: _Reasons = _Reasons()
    max_output_tokens: int | None = Field(None, ge=16)


def read(raw: bytes, key: str) -> ChatRequest:
    """The same request for Chat Completions.

    Raises:
        ValidationError, RefusedError: OpenAI would not accept this body.
    """
    request = ResponsesRequest.model_validate_json(raw)
    items = [one.item for one in request.input]
    if "unverified" in request.model and request.reasoning.summary:
        message = "Your organization must be verified to generate reasoning summaries."
        raise RefusedError(message, "reasoning.summary", "unsupported_value")
    for item, following in itertools.zip_longest(items, items[1:]):
        if isinstance(item, _Reasoning):
            _check(item, following)
    messages = [{"role": "system", "content": request.instructions}] if request.instructions else []
    chat: dict[str, Any] = {
        "model": request.model,
        "messages": [*messages, *_messages(items)],
        "tools": [{"function": {"name": tool.name}} for tool in request.tools] or None,
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning_effort": request.reasoning.effort,
        "reasoning": {"max_tokens": request.reasoning.max_tokens} if request.reasoning.max_tokens else None,
        "seals": bool(request.include),
    }
    return ChatRequest.read(orjson.dumps(chat), key, size=len(raw))


def _check(item: _Reasoning, following: Any) -> None:
    if not item.encrypted_content.startswith(SEAL):
        message = f"The encrypted content for item {item.id} could not be verified."
        raise RefusedError(message, "input", "invalid_encrypted_content")
    is_answer = isinstance(following, _Called | _Reasoning)
    if not is_answer and not (isinstance(following, _Said) and following.role == "assistant"):
        message = f"Item '{item.id}' of type 'reasoning' was provided without its required following item."
        raise RefusedError(message, "input")


def _messages(items: list[Any]) -> list[dict[str, Any]]:
    """Items as messages: a text and the calls behind it are one answer."""
    messages: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, _Said):
            messages.append({"role": item.role, "content": item.content})
        elif isinstance(item, _Output):
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
        elif isinstance(item, _Called):
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            call = {"id": item.call_id, "function": {"name": item.name, "arguments": item.arguments}}
            messages[-1].setdefault("tool_calls", []).append(call)
    return messages


class _Writer:
    """Numbers the events of one answer; items are closed when the next one begins."""

    def __init__(self, request: ChatRequest) -> None:
        self.response: dict[str, Any] = {
            "id": request.response_id,
            "object": "response",
            "model": request.model,
            "status": "in_progress",
            "output": [],
        }
        self._request = request
        self._numbers = itertools.count()
        self._closing = b""
        self._place = -1

    def event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": next(self._numbers), **fields}
        return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"

    def _of_item(self, kind: str, **fields: Any) -> bytes:
        return self.event(kind, item_id=f"item_{self._place}", output_index=self._place, **fields)

    def _begin(self, item: dict[str, Any]) -> bytes:
        closed, self._closing = self._closing, b""
        self._place += 1
        item = {"id": f"item_{self._place}", **item}
        return closed + self.event("response.output_item.added", output_index=self._place, item=item)

    def _done(self, item: dict[str, Any]) -> bytes:
        return self.event("response.output_item.done", output_index=self._place, item=item)

    def reasoning(self, pieces: list[str]) -> Iterator[bytes]:
        """One summary, and what is behind it in a form that only this server reads."""
        for number, piece in enumerate(pieces):
            begins = b""
            if not number:
                begins = self._begin({"type": "reasoning", "summary": []})
                begins += self._of_item("response.reasoning_summary_part.added", summary_index=0)
            yield begins + self._of_item("response.reasoning_summary_text.delta", summary_index=0, delta=piece)
        if not pieces:
            return
        item: dict[str, Any] = {"id": f"rs_{self._request.digest}", "type": "reasoning"}
        item["summary"] = [{"type": "summary_text", "text": "".join(pieces)}]
        if self._request.seals:
            sealed = blake2b("".join(pieces).encode(), digest_size=32).hexdigest()
            item["encrypted_content"] = f"{SEAL}{self._request.digest}{sealed}"
        self._closing = self._done(item)

    def text(self, pieces: list[str]) -> Iterator[bytes]:
        for number, piece in enumerate(pieces):
            begins = b""
            if not number:
                begins = self._begin({"type": "message", "role": "assistant", "content": []})
                begins += self._of_item("response.content_part.added", content_index=0)
            yield begins + self._of_item("response.output_text.delta", content_index=0, delta=piece)
        if pieces:
            content = [{"type": "output_text", "text": "".join(pieces)}]
            self._closing = self._done({"type": "message", "role": "assistant", "content": content})

    def call(self, index: int, call: ToolCall) -> Iterator[bytes]:
        item = {"type": "function_call", "call_id": call_id(self._request, index), "name": call.name}
        yield self._begin({**item, "arguments": ""})
        for piece in pieces_of(call):
            yield self._of_item("response.function_call_arguments.delta", delta=piece)
        done = self._of_item("response.function_call_arguments.done", arguments=call.arguments)
        self._closing = done + self._done({**item, "arguments": call.arguments})

    def end(self, answer: Answer) -> bytes:
        usage = usage_of(self._request, answer)
        reasoned = usage["completion_tokens_details"]
        response = {
            **self.response,
            "status": "incomplete" if answer.finish in _SHORT else "completed",
            "incomplete_details": {"reason": _SHORT[answer.finish]} if answer.finish in _SHORT else None,
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": usage["prompt_tokens_details"],
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": reasoned,
                "total_tokens": usage["total_tokens"],
                "cost": usage["cost"],
            },
        }
        return self._closing + self.event(f"response.{response['status']}", response=response)


def events_of(request: ChatRequest, answer: Answer) -> tuple[bytes, list[bytes]]:
    """The first event, and all others with the end of the stream as the last."""
    writer = _Writer(request)
    head = writer.event("response.created", response=writer.response)
    events = [*writer.reasoning(answer.reasoning), *writer.text(answer.pieces)]
    for index, call in enumerate(answer.calls):
        events += writer.call(index, call)
    return head, [*events, writer.end(answer)]
