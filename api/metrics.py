"""Prometheus metrics, and the middleware that measures requests."""

import time

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ACCEPTED = Counter("longhaul_messages_accepted_total", "Messages accepted.", ["disposition"])
REFUSED = Counter("longhaul_messages_refused_total", "Messages refused.", ["reason"])
STREAMS_OPEN = Gauge("longhaul_streams_open", "Event streams open in this process.")
FALLBACKS = Counter("longhaul_stream_fallbacks_total", "Event streams that switched from Redis to rows.")
LATENCY = Histogram(
    "longhaul_http_request_seconds",
    "Time to the first byte of an answer.",
    ["method", "route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
KNOWN_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "PUT"})


class Metrics:
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
                LATENCY.labels(method, route, message["status"]).observe(time.perf_counter() - started_at)
            await send(message)

        await self.app(scope, receive, measured)
