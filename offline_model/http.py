"""The little of ASGI that is needed: whole responses, bodies, and a connection that breaks."""

from __future__ import annotations

from typing import Any

from starlette.types import Receive, Send

JSON = "application/json"


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionResetError("the client went away")
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def start(send: Send, status: int, headers: list[tuple[str, str]]) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def respond(
    send: Send, status: int, body: bytes, headers: list[tuple[str, str]] | None = None, kind: str = JSON
) -> None:
    """Send a whole response."""
    own = [("content-type", kind), ("content-length", str(len(body)))]
    await start(send, status, own + (headers or []))
    await send({"type": "http.response.body", "body": body})


async def break_connection(send: Send, receive: Receive) -> None:
    """Close the connection under the response. ASGI has no word for it, so this asks uvicorn's own object."""
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionAbortedError("asked for by a fault")
    transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
