"""With auth off, every caller that reaches the port is the user, so web pages of other sites must not reach it.

The loopback address keeps other machines out, but not a page in a browser on this one: it may post to us, and by
rebinding its own name to 127.0.0.1 even read from us. Browsers say which page asks and which host name it used.
A reverse proxy on this machine would let other machines in; it names them in forwarding headers.
"""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import ProblemError, response

FORWARDING_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
REFUSED = ProblemError(
    403, "foreign-page", "With LONGHAUL_AUTH=off only pages and programs of this machine are answered, and no proxy."
)


class LoopbackOnly:
    """Answers only requests to this machine's own names, without a proxy, from its own pages or allowed origins."""

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
        await (self.app if allowed else response(scope["path"], REFUSED))(scope, receive, send)


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
