"""What every request passes through before its route, the innermost first."""

import ipaddress
import re
import time
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import metrics, problems
from api.request_body import BODY_MAX

KNOWN_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "PUT"})
FORWARDING_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
REQUEST_ID = b"x-request-id"
REQUEST_NAME = re.compile(rb"[\w.-]{1,128}", re.ASCII)
NO_SUCH_PATH = problems.ProblemError(404, "not-found", "Not Found")
NOT_LOCAL = problems.ProblemError(
    403, "foreign-page", "With LONGHAUL_AUTH=off only pages and programs of this machine are answered, and no proxy."
)


class NoNulInPath:
    """Answers 404 to a path that holds NUL: no id does, and PostgreSQL fails on such a text."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and "\x00" in scope["path"]:
            await problems.response(scope["path"], NO_SUCH_PATH)(scope, receive, send)
            return
        await self.app(scope, receive, send)


class UnexpectedErrors:
    """Answers errors that nothing foresaw with a 500.

    Starlette would do that outside all middleware, so the answer would miss CORS headers and metrics.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noting_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noting_start)
        except Exception as error:
            if started:  # Too late for another answer. The server logs the error and cuts the connection.
                raise
            await problems.response(scope["path"], problems.problem_of(error))(scope, receive, send)


class CloseUnreadBodies:
    """Close the connection of a request that was answered before its large body was read.

    Otherwise the server would receive the rest only to throw it away.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        unread = b"transfer-encoding" in headers or (declared.isdigit() and int(declared) > BODY_MAX)

        async def watched() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self.app(scope, watched, closing)


class LoopbackOnly:
    """With auth off: answers only requests to this machine's own names, from its own pages or from allowed origins.

    Every caller that reaches the port is the user then. The loopback address keeps other machines out, but not a page
    in a browser on this one: it may post to us, and by rebinding its own name to 127.0.0.1 even read from us. Browsers
    say which page asks and which host name it used. A reverse proxy on this machine would let other machines in; it
    names them in forwarding headers.
    """

    def __init__(self, app: ASGIApp, origins: list[str]) -> None:
        self.app = app
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = (
            not any(name in headers for name in FORWARDING_HEADERS)
            and _is_loopback(f"//{headers.get('host', 'localhost')}")
            and (origin is None or origin in self._origins or _is_loopback(origin))
        )
        await (self.app if allowed else problems.response(scope["path"], NOT_LOCAL))(scope, receive, send)


class RequestId:
    """Names each answer in `x-request-id`, by the request's own name if it has one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(REQUEST_ID, b"")
        name = sent if REQUEST_NAME.fullmatch(sent) else uuid4().hex.encode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (REQUEST_ID, name)]}
            await send(message)

        await self.app(scope, receive, named)


class RequestMetrics:
    """Measures the time to an answer's first byte; the length of a stream is not a latency."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Only our routes and methods become labels: clients send any path, and every label value costs memory.
                route = getattr(scope.get("route"), "path", "unknown")
                method = scope["method"] if scope["method"] in KNOWN_METHODS else "other"
                metrics.LATENCY.labels(method, route, message["status"]).observe(time.perf_counter() - started_at)
            await send(message)

        await self.app(scope, receive, measured)


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
