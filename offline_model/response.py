"""Sending an answer in its protocol (here that of Chat Completions), at its pace, broken where a fault asks for it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from offline_model.answer import Answer
from offline_model.conversation import ToolCall
from offline_model.request import ChatRequest
from offline_model.script import Fault
from offline_model.state import CallRecord

_BATCH_BYTES = 64 * 1024
_SSE = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


@dataclass(slots=True)
class ChatResponse:
    """The response to one request; `begun` is when the request arrived, on the performance counter.

    `events_of`: writes an answer in the protocol of the request.
    """

    request: ChatRequest
    answer: Answer
    fault: Fault | None
    begun: float
    record: CallRecord
    events_of: Callable[[ChatRequest, Answer], tuple[bytes, list[bytes]]]

    async def play(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, or break where the fault says so."""
        if self.request.window is not None and self.request.prompt_tokens > self.request.window:
            self.record.outcome = "too long"
            await _too_long(self.request.window, self.request.prompt_tokens)(scope, receive, send)
        elif self.fault and self.fault.kind == "status":
            self.record.outcome = f"status {self.fault.number}"
            message = f"The offline model was asked for status {self.fault.number}."
            await error_response(self.fault.number, message, headers=self.fault.headers)(scope, receive, send)
        elif self.fault and self.fault.kind == "refuse":
            await self._break("refused", send)
        else:
            await self._stream(self.fault.kind if self.fault else "", self.fault.number if self.fault else 0, send)

    async def _break(self, outcome: str, send: Send) -> None:
        """Close the connection under the response. ASGI cannot do this, so it asks uvicorn's own object."""
        self.record.outcome = outcome
        connection: Any = send
        connection.__self__.transport.close()
        await asyncio.Event().wait()  # the app cancels this when it sees that the connection is closed

    async def _stream(self, fault_kind: str, fault_number: int, send: Send) -> None:
        """Send each chunk when it is due; chunks that are overdue go out together."""
        head, events = self.events_of(self.request, self.answer)
        tokens = _tokens(self.answer)
        last = len(events) - 1
        if fault_kind == "badchunk":
            broken_at = min(max(0, fault_number - 1), last)
            events.insert(broken_at, b"data: {oops\n\n")
            tokens.insert(broken_at, 0)
        stop = min(fault_number, last) if fault_kind in ("cut", "silence") else -1
        await send({"type": "http.response.start", "status": 200, "headers": _SSE})
        due = self.begun + (self.answer.pace.ttft or 0.0) / 1000
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        self.record.first_chunk_at = time.time()
        self._charge(0)
        waiting, size, completion = [head], 0, 0
        for i, event in enumerate(events):
            if i == stop:
                await _flush(send, waiting)
                if fault_kind == "cut":
                    await self._break("cut", send)
                await asyncio.sleep(self.fault.seconds if self.fault else 0.0)
                due = time.perf_counter()
            elif 0 < i < last:
                due += (self.answer.pace.delay or 0.0) / 1000
            ahead = due - time.perf_counter()
            if ahead > 0 or size > _BATCH_BYTES:
                await _flush(send, waiting)
                size = 0
                await asyncio.sleep(max(0.0, ahead))
            waiting.append(event)
            size += len(event)
            completion += tokens[i]
            self._charge(completion)
        await _flush(send, waiting, more=False)
        self.record.usage_sent = self.request.include_usage
        # A client cannot read a stream with a broken chunk, so it does not count as completed.
        self.record.outcome = "badchunk" if fault_kind == "badchunk" else "completed"

    def _charge(self, completion_tokens: int) -> None:
        self.record.prompt_tokens, self.record.completion_tokens = self.request.prompt_tokens, completion_tokens
        self.record.microdollars = round(_microdollars(self.request, completion_tokens))


async def _flush(send: Send, waiting: list[bytes], *, more: bool = True) -> None:
    body = b"".join(waiting)
    waiting.clear()
    await send({"type": "http.response.body", "body": body, "more_body": more})


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An error in OpenAI's shape."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status, headers)


def _too_long(window: int, counted: int) -> JSONResponse:
    message = (
        f"This model's maximum context length is {window} tokens. However, your messages resulted in {counted} tokens. "
        "Please reduce the length of the messages."
    )
    return error_response(400, message, param="messages", code="context_length_exceeded")


def usage_of(request: ChatRequest, answer: Answer) -> dict[str, Any]:
    """Tokens by rule of thumb, and a made-up price so that budgets and cost displays have something to show."""
    reasoning, completion = len(answer.reasoning), sum(_tokens(answer))
    return {
        "prompt_tokens": request.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": request.prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        "cost": _microdollars(request, completion) / 1e6,
    }


def _microdollars(request: ChatRequest, completion_tokens: int) -> float:
    return request.prompt_tokens * 0.4 + completion_tokens * 1.6


def _tokens(answer: Answer) -> list[int]:
    """The tokens in each event of the stream; those of a call come with its name."""
    tokens = [1 for _ in answer.reasoning] + [max(1, len(piece) // 16) for piece in answer.pieces]
    for call in answer.calls:
        tokens += [8, *(0 for _ in pieces_of(call))]
    return [*tokens, 0]


def chat_events(request: ChatRequest, answer: Answer) -> tuple[bytes, list[bytes]]:
    """The first event, and all others with the end of the stream as the last.

    They are built before the first is due, so that their pace does not depend on their size.
    """
    base = {
        "id": request.response_id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": request.model,
    }
    prefix = b"data: " + orjson.dumps(base)[:-1]
    before, after = prefix + b',"choices":[{"index":0,"delta":', b',"finish_reason":null}]}\n\n'
    events = [before + orjson.dumps({"reasoning": text}) + after for text in answer.reasoning]
    encoded: dict[str, bytes] = {}  # a long speech repeats its blocks: encode each once
    for text in answer.pieces:
        if text not in encoded:
            encoded[text] = before + orjson.dumps({"content": text}) + after
        events.append(encoded[text])
    for index, call in enumerate(answer.calls):
        events += [before + orjson.dumps(delta) + after for delta in _call_deltas(request, index, call)]
    tail = before + b'{},"finish_reason":' + orjson.dumps(answer.finish) + b"}]}\n\n"
    if request.include_usage:
        tail += prefix + b',"choices":[],"usage":' + orjson.dumps(usage_of(request, answer)) + b"}\n\n"
    head = before + b'{"role":"assistant","content":""}' + after
    return head, [*events, tail + b"data: [DONE]\n\n"]


def _call_deltas(request: ChatRequest, index: int, call: ToolCall) -> list[dict[str, Any]]:
    """A tool call with its arguments in two to four pieces, as real models send them."""
    first = {"index": index, "id": call_id(request, index), "type": "function"}
    deltas = [{**first, "function": {"name": call.name, "arguments": ""}}]
    deltas += [{"index": index, "function": {"arguments": piece}} for piece in pieces_of(call)]
    return [{"tool_calls": [delta]} for delta in deltas]


def call_id(request: ChatRequest, index: int) -> str:
    return f"call_{request.digest}_{index}"


def pieces_of(call: ToolCall) -> list[str]:
    count = min(4, max(2, len(call.arguments) // 12))
    size = max(1, -(-len(call.arguments) // count))
    return [call.arguments[start : start + size] for start in range(0, len(call.arguments), size)]
