"""The routes. Plain ASGI: fifty streams at once share two cores with everything that they are there to measure."""

import asyncio
import time
from dataclasses import replace

import orjson
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from offline_model.answer import broken, decide
from offline_model.conversation import read_conversation
from offline_model.request import ChatRequest
from offline_model.response import Response, error_body, respond
from offline_model.script import Pace
from offline_model.state import CallRecord, FaultBook, InstalledFault, Stats

#: Pleasant to watch; tests and benchmarks set their own.
DEFAULT_PACE = Pace(ttft=200, delay=15)
CALL_HEADER = b"x-longhaul-call"


class OfflineApp:
    """The ASGI application of one server, with its own counters and faults. It needs no lifespan events."""

    def __init__(self, pace: Pace = DEFAULT_PACE) -> None:
        self._pace = pace
        self._stats = Stats()
        self._faults = FaultBook()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = str(scope["path"]).rstrip("/"), scope["method"]
        try:
            body = await _body(receive)
            if (method, path) == ("POST", "/v1/chat/completions"):
                key = next((v.decode("latin-1") for n, v in scope["headers"] if n == CALL_HEADER), "")
                await self._chat(body, key, receive, send)
            else:
                await respond(send, *self._small_route(method, path, body))
        except ConnectionResetError:
            return

    async def _chat(self, raw: bytes, key: str, receive: Receive, send: Send) -> None:
        """Answer one request; a client that goes away ends the work at once."""
        begun = time.perf_counter()
        try:
            request = ChatRequest.read(raw, key)
        except ValidationError as error:
            await respond(send, 400, _refusal(error))
            return
        record = CallRecord(key, request.model)
        self._stats.begin(record)
        try:
            conversation = read_conversation(request.messages)
            answer = decide(request, conversation)
            answer = replace(answer, pace=answer.pace.over(self._pace))
            fault = self._faults.take(
                conversation.newest_text, key or request.digest, answer.faults, has_calls=bool(answer.calls)
            )
            if fault:
                record.fault = fault.fault
                answer = broken(answer, fault.kind)
            response = Response(request, answer, fault, begun, record, send)
            await _until_done_or_gone(asyncio.create_task(response.play()), receive)
        finally:
            self._stats.end(record)

    def _small_route(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        match method, path:
            case "GET", "/healthz":
                return 200, b'{"status":"ok"}'
            case "GET", "/stats":
                return 200, orjson.dumps(self._stats, default=list)
            case "POST", "/faults":
                try:
                    self._faults.installed.append(InstalledFault.model_validate_json(body))
                except ValidationError as error:
                    return 400, _refusal(error)
                return 200, b"{}"
            case "DELETE", "/faults":
                self._faults = FaultBook()
                return 200, b"{}"
        return 404, error_body(f"Unknown request URL: {method} {path}.", "invalid_request_error", code="unknown_url")


def _refusal(error: ValidationError) -> bytes:
    first = error.errors()[0]
    return error_body(first["msg"], "invalid_request_error", ".".join(map(str, first["loc"])) or None)


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionResetError("the client went away")
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _until_done_or_gone(job: asyncio.Task[None], receive: Receive) -> None:
    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.create_task(gone())
    try:
        await asyncio.wait({job, watch}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            job.result()
    finally:
        watch.cancel()
        job.cancel()
        await asyncio.gather(job, watch, return_exceptions=True)
