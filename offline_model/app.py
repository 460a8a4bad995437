"""The routes. Plain ASGI: fifty streams at once share two cores with everything they are there to measure."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from offline_model.completions import ChatEndpoint
from offline_model.faults import FaultBook, FaultSyntaxError, InstalledFault, parse_fault
from offline_model.http import read_body, respond
from offline_model.options import OfflineOptions
from offline_model.stats import Stats
from offline_model.wire import MODELS, error_body

CALL_HEADER = b"x-longhaul-call"


class OfflineApp:
    """The ASGI application; `stats` and `faults` are open to tests that run it in their own process."""

    def __init__(self, options: OfflineOptions) -> None:
        self.stats = Stats()
        self.faults = FaultBook()
        self._chat = ChatEndpoint(options, self.stats, self.faults)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        path = str(scope["path"]).rstrip("/")
        try:
            body = await read_body(receive)
            if path == "/v1/chat/completions" and scope["method"] == "POST":
                key = next((v.decode("latin-1") for n, v in scope["headers"] if n == CALL_HEADER), "")
                await self._chat.handle(body, key, receive, send)
                return
            status, answer = self._small_route(scope["method"], path, body)
            await respond(send, status, answer)
        except ConnectionResetError:
            return

    def _small_route(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        match method, path:
            case "GET", "/healthz":
                return 200, b'{"status":"ok"}'
            case "GET", "/v1/models":
                models = [{"id": m, "object": "model", "created": 0, "owned_by": "longhaul"} for m in MODELS]
                return 200, orjson.dumps({"object": "list", "data": models})
            case "GET", "/stats":
                return 200, orjson.dumps(self.stats.as_json())
            case "POST", "/stats/reset":
                self.stats.reset()
                return 200, b"{}"
            case "GET", "/faults":
                return 200, self._faults_body()
            case "POST", "/faults":
                return self._install_fault(body)
            case "DELETE", "/faults":
                self.faults.clear()
                return 200, b"{}"
        return 404, error_body(f"Unknown request URL: {method} {path}.", "invalid_request_error", code="unknown_url")

    def _install_fault(self, body: bytes) -> tuple[int, bytes]:
        try:
            wanted: Any = orjson.loads(body)
            fault = parse_fault(str(wanted["fault"]))
            installed = InstalledFault(str(wanted.get("match", "")), int(wanted.get("times", 1)), fault)
        except (FaultSyntaxError, orjson.JSONDecodeError) as error:
            return 400, error_body(str(error), "invalid_request_error", "fault")
        except (KeyError, TypeError, ValueError, AttributeError):
            return 400, error_body("Send {match, times, fault}.", "invalid_request_error", "fault")
        if installed.times > 0:
            self.faults.installed.append(installed)
        return 200, self._faults_body()

    def _faults_body(self) -> bytes:
        return orjson.dumps({"faults": [one.as_json() for one in self.faults.installed]})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def create_app(options: OfflineOptions | None = None) -> OfflineApp:
    """A new server with its own counters and faults."""
    return OfflineApp(options or OfflineOptions())
