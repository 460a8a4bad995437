"""The model of this comparison: one tool call, then an answer of 200 tokens, streamed or whole, as fast as it can.

The offline model answers streams only, as Longhaul asks for them. Some of the peers ask for whole answers.
"""

import sys
from collections.abc import AsyncIterator

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TOKENS = [f"word{number} " for number in range(200)]
CALL = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "calculator", "arguments": '{"expression":"6*7"}'},
}
USAGE = {"prompt_tokens": 100, "completion_tokens": 200, "total_tokens": 300}
HEAD = {"id": "chatcmpl-1", "created": 0, "model": "offline-standard"}


async def chat(request: Request) -> Response:
    """Ask for the tool unless the newest message is a tool's result."""
    body = orjson.loads(await request.body())
    answered = body["messages"][-1]["role"] == "tool"
    if body.get("stream"):
        return StreamingResponse(_stream(answered=answered), media_type="text/event-stream")
    message: dict[str, object] = {"role": "assistant", "content": "".join(TOKENS) if answered else None}
    if not answered:
        message["tool_calls"] = [{name: value for name, value in CALL.items() if name != "index"}]
    choice = {"index": 0, "message": message, "finish_reason": "stop" if answered else "tool_calls"}
    return JSONResponse({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})


async def _stream(*, answered: bool) -> AsyncIterator[bytes]:
    deltas = [{"content": token} for token in TOKENS] if answered else [{"tool_calls": [CALL]}]
    for delta in deltas:
        yield _chunk(choices=[{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}])
    reason = "stop" if answered else "tool_calls"
    yield _chunk(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])
    yield _chunk(choices=[], usage=USAGE)
    yield b"data: [DONE]\n\n"


def _chunk(**fields: object) -> bytes:
    return b"data: " + orjson.dumps({**HEAD, "object": "chat.completion.chunk", **fields}) + b"\n\n"


async def health(_: Request) -> Response:
    """It answers."""
    return Response()


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/healthz", health)])


def main() -> None:
    """Serve on the port that is the only argument."""
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
