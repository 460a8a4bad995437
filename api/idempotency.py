"""`Idempotency-Key` on every POST: the same request with the same key gets the answer that it got before.

The answer is kept for a day with its user and key. Not kept are streams, and answers of routes that wait for a turn:
these routes find the message again, whose id follows from the key or is its sender's. Errors are not kept either: the
request may be made again.
"""

import hashlib
import logging

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dependencies import current_caller, dependencies_of
from api.problems import ProblemError, invalid
from api.request_body import MESSAGE_BODY_MAX
from longhaul.auth import UnauthorizedError
from longhaul.db import kept_answers
from longhaul.db.database import Database
from longhaul.db.kept_answers import KeptAnswer
from longhaul.errors import UnavailableError

log = logging.getLogger(__name__)
HEADER = "idempotency-key"
KEY_MAX = 200
#: Its answer is a kept one.
REPLAYED = "idempotency-replayed"
#: Routes that find the message again. Their answers are streams, or say that the turn still runs.
REATTACHING = ("/stream", "/ask", "/v1/chat", "/chat/completions")
#: Their answers hold secrets, so nothing of them is kept: where a person connects, what webhooks sign with, and what a
#: tool worker is given.
SECRET_END, SECRET_BEGINNING = ("/connect", "/v1/webhooks", "/secret"), "/v1/tool-calls/"
#: Of the answer's headers, those that belong to what was done and not to the connection.
KEPT_HEADERS = ("content-type", "location", "x-longhaul-turn-id", "x-longhaul-session-id")
#: A larger answer is not kept.
ANSWER_MAX = 256 * 1024
USED = ProblemError(422, "idempotency-key-used", "This Idempotency-Key was sent with another request; use a new one.")
IN_PROGRESS = ProblemError(
    409,
    "request-in-progress",
    "The first request with this Idempotency-Key is being handled; send this one again in a moment.",
    headers={"Retry-After": "1"},
)


def _is_kept(path: str) -> bool:
    """Whether answers to repeated requests come from what was kept."""
    return path.startswith("/v1/") and not (
        path.startswith(SECRET_BEGINNING) or path.endswith((*REATTACHING, *SECRET_END))
    )


class Idempotency:
    """Answers repeated POSTs below /v1 as they were answered before."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = Headers(scope=scope).get(HEADER) if scope["type"] == "http" and scope["method"] == "POST" else None
        if key is None or not _is_kept(scope["path"]):
            await self.app(scope, receive, send)
            return
        if not key or len(key) > KEY_MAX or "\x00" in key:
            raise invalid([{"loc": ["header", HEADER], "msg": f"should have 1 to {KEY_MAX} characters", "type": "key"}])
        connection = HTTPConnection(scope)
        deps = dependencies_of(connection)
        try:
            user = (await current_caller(connection, deps)).user_id
        except UnauthorizedError:
            await self.app(scope, receive, send)  # which refuses it, too
            return
        body = _Body(receive)
        request = await _request_of(scope, body)
        if request is None:
            await self.app(scope, body.again, send)
            return
        known = await kept_answers.claim(deps.database, user, key, request)
        if known is not None:
            await _replay(known, request)(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self.app(scope, body.again, answer.send)
        except Exception:
            await kept_answers.release(deps.database, user, key)
            raise
        await _settle(deps.database, user, key, answer)


async def _settle(database: Database, user: str, key: str, answer: "_Answer") -> None:
    """Keep an answer that was sent. If that fails, the same request is refused for a minute, and then made again."""
    try:
        if answer.keeps:
            headers = {name: value for name, value in answer.headers.items() if name in KEPT_HEADERS}
            await kept_answers.keep(database, user, key, status=answer.status, headers=headers, body=bytes(answer.body))
        else:
            await kept_answers.release(database, user, key)
    except UnavailableError as error:
        log.warning("an answer could not be kept for its idempotency key: %s", error)


def _replay(known: KeptAnswer, request: str) -> Response:
    """The kept answer.

    Raises:
        ProblemError: 422, the key belongs to another request; 409, its request has no answer yet.
    """
    if known.request != request:
        raise USED
    if known.status is None:
        raise IN_PROGRESS
    return Response(known.body, known.status, {**(known.headers or {}), REPLAYED: "true"})


async def _request_of(scope: Scope, body: "_Body") -> str | None:
    """What tells this request from others; None: its body is too large, which its route refuses.

    Of a form, whose boundaries differ each time it is sent, only the length counts.
    """
    headers = Headers(scope=scope)
    digest = hashlib.sha256(b"%b?%b\n" % (scope["path"].encode(), scope["query_string"]))
    if headers.get("content-type", "").startswith("multipart/"):
        digest.update(headers.get("content-length", "").encode())
    elif not await body.read(MESSAGE_BODY_MAX):
        return None
    else:
        digest.update(body.content)
    return digest.hexdigest()


class _Body:
    """A request's body, which can be read here and again by the route."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    @property
    def content(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self._messages)

    async def read(self, limit: int) -> bool:
        """Read it; False: it is larger than `limit` bytes, or its client has gone."""
        size, more = 0, True
        while more:
            message = await self._receive()
            self._messages.append(message)
            size += len(message.get("body", b""))
            if size > limit or message["type"] == "http.disconnect":
                return False
            more = message.get("more_body", False)
        return True

    async def again(self) -> Message:
        """What was read, then what comes."""
        return self._messages.pop(0) if self._messages else await self._receive()


class _Answer:
    """An answer on its way to the client, and what of it may be kept."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.headers = Headers()
        self.body = bytearray()
        self._is_whole = False

    @property
    def keeps(self) -> bool:
        """It says that something was done, and is whole."""
        is_stream = self.headers.get("content-type", "").startswith("text/event-stream")
        return 200 <= self.status < 300 and not is_stream and self._is_whole and len(self.body) <= ANSWER_MAX

    async def send(self, message: Message) -> None:
        """Pass a part on."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], Headers(raw=list(message.get("headers", ())))
        elif message["type"] == "http.response.body":
            if len(self.body) <= ANSWER_MAX:
                self.body += message.get("body", b"")
            self._is_whole = not message.get("more_body", False)
        await self._send(message)
