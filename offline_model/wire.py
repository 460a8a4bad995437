"""The bytes of the protocol. The part of a chunk that never changes is built once for each answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import orjson

from offline_model.answer import Answer
from offline_model.conversation import ToolCall
from offline_model.request import ChatRequest

DONE = b"data: [DONE]\n\n"
MODELS = ("offline-standard", "offline-advanced", "offline-small")


def usage_of(request: ChatRequest, answer: Answer) -> dict[str, Any]:
    """Tokens by rule of thumb, and a made-up price so that budgets and cost displays have something to show."""
    reasoning = len(answer.reasoning)
    completion = reasoning + 8 * len(answer.calls) + sum(max(1, len(p) // 16) for p in answer.pieces)
    return {
        "prompt_tokens": request.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": request.prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        "cost": (request.prompt_tokens * 0.4 + completion * 1.6) / 1e6,
    }


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def call_id(request: ChatRequest, index: int) -> str:
    return f"call_{request.digest}_{index}"


def fragments(arguments: str) -> list[str]:
    """Arguments in two to four pieces, as real models send them."""
    if len(arguments) < 2:
        return [arguments] if arguments else []
    count = min(4, max(2, len(arguments) // 12))
    size = -(-len(arguments) // count)
    return [arguments[i : i + size] for i in range(0, len(arguments), size)]


@dataclass(slots=True)
class StreamChunks:
    """An answer as server-sent events: `deltas` are the content chunks, `tail` the end of the stream."""

    head: bytes
    deltas: list[bytes]
    tail: bytes


def stream_chunks(request: ChatRequest, answer: Answer) -> StreamChunks:
    """Build all events of a stream before the first is due, so that sending costs nothing but the sending."""
    base = {
        "id": f"chatcmpl-{request.digest}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": request.model,
        "system_fingerprint": "longhaul-offline",
    }
    prefix = b"data: " + orjson.dumps(base)[:-1]
    before = prefix + b',"choices":[{"index":0,"delta":'
    after = b',"finish_reason":null}]}\n\n'
    known: dict[str, bytes] = {}  # a long speech repeats its blocks: encode each once

    def delta(key: bytes, text: str) -> bytes:
        if len(text) < 1024:
            return b"".join((before, key, orjson.dumps(text), b"}", after))
        if text not in known:
            known[text] = b"".join((before, key, orjson.dumps(text), b"}", after))
        return known[text]

    deltas = [delta(b'{"reasoning":', text) for text in answer.reasoning]
    deltas += [delta(b'{"content":', text) for text in answer.pieces]
    for index, one in enumerate(answer.calls):
        deltas += [before + orjson.dumps(d) + after for d in _call_deltas(request, index, one)]
    tail = before + b'{},"finish_reason":' + orjson.dumps(answer.finish) + b"}]}\n\n"
    if request.include_usage:
        tail += prefix + b',"choices":[],"usage":' + orjson.dumps(usage_of(request, answer)) + b"}\n\n"
    head = before + b'{"role":"assistant","content":""}' + after
    return StreamChunks(head, deltas, tail + DONE)


def _call_deltas(request: ChatRequest, index: int, one: ToolCall) -> list[dict[str, Any]]:
    first = {
        "index": index,
        "id": call_id(request, index),
        "type": "function",
        "function": {"name": one.name, "arguments": ""},
    }
    rest = [{"index": index, "function": {"arguments": piece}} for piece in fragments(one.arguments)]
    return [{"tool_calls": [part]} for part in (first, *rest)]


def whole_body(request: ChatRequest, answer: Answer) -> bytes:
    """The answer to a request that does not stream."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(answer.pieces) or None,
        "refusal": None,
    }
    if answer.reasoning:
        message["reasoning"] = "".join(answer.reasoning)
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": call_id(request, i),
                "type": "function",
                "function": {"name": one.name, "arguments": one.arguments},
            }
            for i, one in enumerate(answer.calls)
        ]
    return orjson.dumps(
        {
            "id": f"chatcmpl-{request.digest}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": request.model,
            "system_fingerprint": "longhaul-offline",
            "choices": [{"index": 0, "message": message, "finish_reason": answer.finish, "logprobs": None}],
            "usage": usage_of(request, answer),
        }
    )
