"""The routes. Plain ASGI: fifty streams at once share two cores with everything that they are there to measure."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from offline_model import responses
from offline_model.answer import Answer, broken, decide
from offline_model.conversation import open_tasks
from offline_model.request import RESPONSES_ONLY, ChatRequest
from offline_model.response import ChatResponse, chat_events, error_response
from offline_model.script import Pace
from offline_model.state import CallRecord, FaultBook, InstalledFault, Stats

#: Pleasant to watch; tests and benchmarks set their own.
DEFAULT_PACE = Pace(ttft=200, delay=15)
CALL_HEADER = "x-longhaul-call"
ONLY_RESPONSES = "This model is only supported in v1/responses and not in v1/chat/completions."
Read = Callable[[bytes, str], ChatRequest]
EventsOf = Callable[[ChatRequest, Answer], tuple[bytes, list[bytes]]]


class OfflineApp:
    """The ASGI application of one server, with its own counters and faults. It needs no lifespan events."""

    def __init__(self, pace: Pace = DEFAULT_PACE) -> None:
        self._pace = pace
        self._stats = Stats()
        #: All calls that cost something: a test compares them with what the client has booked.
        self._bill: deque[CallRecord] = deque(maxlen=100_000)
        self._faults = FaultBook()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = Request(scope, receive)
        try:
            body = await http.body()
        except ClientDisconnect:
            return
        match http.method, http.url.path.rstrip("/"):
            case "POST", "/v1/chat/completions":
                await self._answer(ChatRequest.read, chat_events, body, http, send)
                return
            case "POST", "/v1/responses":
                await self._answer(responses.read, responses.events_of, body, http, send)
                return
            case "GET", "/healthz":
                response: Response = JSONResponse({"status": "ok"})
            case "GET", "/stats":
                response = Response(orjson.dumps(self._stats, default=list), media_type="application/json")
            case "GET", "/v1/generation":
                response = self._generation(http.query_params.get("id", ""))
            case "GET", "/bill":
                response = Response(orjson.dumps(list(self._bill)), media_type="application/json")
            case "POST", "/faults":
                response = self._install_fault(body)
            case "DELETE", "/faults":
                self._faults = FaultBook()
                response = JSONResponse({})
            case method, path:
                response = error_response(404, f"Unknown request URL: {method} {path}.")
        await response(scope, receive, send)

    async def _answer(self, read: Read, events_of: EventsOf, body: bytes, http: Request, send: Send) -> None:
        """Answer one request; a client that goes away ends the work at once."""
        begun, key, receive = time.perf_counter(), http.headers.get(CALL_HEADER, ""), http.receive
        try:
            request = read(body, key)
        except (ValidationError, responses.RefusedError) as error:
            await _refusal(error)(http.scope, receive, send)
            return
        if RESPONSES_ONLY in request.model and events_of is chat_events:
            await error_response(404, ONLY_RESPONSES, param="model")(http.scope, receive, send)
            return
        record = CallRecord(key)
        self._stats.begin(record)
        record.id = request.response_id = f"gen-{request.digest}-{self._stats.calls}"
        try:
            tasks = open_tasks(request.messages)
            answer = decide(request, tasks, self._pace)
            text = tasks[-1].text if tasks else ""
            fault = request.refusal or self._faults.take(
                text, key or request.digest, answer.faults, has_calls=bool(answer.calls)
            )
            if fault:
                answer = broken(answer, fault.kind)
            response = ChatResponse(request, answer, fault, begun, record, events_of)
            await _until_done_or_gone(response.play(http.scope, receive, send), receive)
        finally:
            self._stats.end(record)
            if record.microdollars:
                self._bill.append(record)

    def _generation(self, response_id: str) -> Response:
        """The record of one call that has ended, as OpenRouter has it."""
        record = next((one for one in reversed(self._bill) if one.id == response_id), None)
        if record is None:
            return error_response(404, f"Generation {response_id} not found.")
        data = {
            "id": record.id,
            "total_cost": record.microdollars / 1e6,
            "native_tokens_prompt": record.prompt_tokens,
            "native_tokens_completion": record.completion_tokens,
        }
        return JSONResponse({"data": data})

    def _install_fault(self, body: bytes) -> Response:
        try:
            self._faults.installed.append(InstalledFault.model_validate_json(body))
        except ValidationError as error:
            return _refusal(error)
        return JSONResponse({})


def _refusal(error: ValidationError | responses.RefusedError) -> Response:
    if isinstance(error, responses.RefusedError):
        return error_response(400, str(error), param=error.param, code=error.code)
    first = error.errors()[0]
    return error_response(400, first["msg"], param=".".join(map(str, first["loc"])) or None)


async def _until_done_or_gone(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    done = asyncio.create_task(work)
    gone = asyncio.ensure_future(receive())  # the body is read, so the next message is that the client left
    try:
        await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            done.result()
    finally:
        done.cancel()
        gone.cancel()
        await asyncio.gather(done, gone, return_exceptions=True)
