"""What the client says to the API, without input and output: both clients run these operations, each in its own way.

An operation is a generator. It yields a `Request` to get the response, or a `Pause`, and returns its result.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypedDict, TypeVar
from uuid import uuid4

import httpx2
import orjson
from pydantic import BaseModel

from longhaul_client.errors import ConnectionLostError, ProblemError, StillRunningError, seconds
from longhaul_client.events import Event, Finished, Joined, Started, event_of
from longhaul_client.models import Answer, Cancelled, Progress, Sent, SessionInfo, SessionPage, Turn

TIMEOUT = httpx2.Timeout(10.0, read=75.0)  # a poll waits 30 s, Stop 10 s; a stream is never silent for more than 15 s
POLL_S = 30
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.3, 5.0
ALIVE_S = 5.0
TEMPORARY = frozenset({502, 503, 504})
#: The `code` of a problem: the same request, by its idempotency key, is being handled.
IN_PROGRESS = "request-in-progress"

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """One HTTP request; `path` is below /v1."""

    method: str
    path: str
    json: Json | None = None
    query: Mapping[str, str | int | float] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pause:
    """Seconds to wait before the next try, and why."""

    seconds: float
    why: str


Operation = Generator[Request | Pause, httpx2.Response | None, T]


class PageContext(TypedDict, total=False):
    """The page that the user is looking at."""

    url: str
    content: str


class MessageOptions(TypedDict, total=False):
    """What goes with a message. `more`: fields of the API that this version has no name for."""

    message_id: str
    mode: Literal["fast", "extended_thinking"]
    tier: Literal["standard", "advanced"]
    context: PageContext
    on_busy: Literal["join", "queue", "interrupt", "reject", "rollback"]
    more: Json


class SessionOptions(TypedDict, total=False):
    """What a session is made with. Limits apply to it and all sub-sessions below it."""

    title: str
    max_cost_microdollars: int
    max_seconds: int
    allow_tools: list[str]
    deny_tools: list[str]
    dry_run: bool


def message_body(text: str, options: MessageOptions) -> dict[str, Any]:
    """The request's body of a message. Its id is fixed here: the message counts once, however often it is sent."""
    named = {name: value for name, value in options.items() if name != "more"}
    return {"message": text, "message_id": str(uuid4()), **named, **options.get("more", {})}


class Patience:
    """Growing pauses between connections, and the end of them when nothing has been heard for long enough."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.heard()

    def heard(self) -> None:
        """The API has answered."""
        self._since = time.monotonic()
        self._pause = FIRST_PAUSE_S

    def pause(self, why: str, retry_after: float | None = None) -> Pause:
        """The pause before the next try.

        Raises:
            ConnectionLostError: the API has been away for too long.
        """
        if time.monotonic() - self._since > self._limit:
            raise ConnectionLostError(f"the connection is lost ({why}) and did not come back within {self._limit:g} s")
        pause = max(self._pause, retry_after or 0)
        self._pause = min(self._pause * 2, LONGEST_PAUSE_S)
        return Pause(pause, why)


def away(response: httpx2.Response, patience: Patience) -> Pause | None:
    """The pause before the next try, if a response says that the API is away for now.

    Raises:
        ConnectionLostError: it has been away for too long.
    """
    if response.status_code not in TEMPORARY:
        return None
    return patience.pause(f"the API answers {response.status_code}", seconds(response.headers.get("retry-after")))


def exchange(request: Request, patience: Patience, *, repeatable: bool = True) -> Operation[httpx2.Response]:
    """Get the response of a request. A `repeatable` one is sent again while the API is away.

    Raises:
        ProblemError: the API refuses it.
        ConnectionLostError: the API is away.
    """
    while True:
        try:
            response = yield request
        except httpx2.TransportError as error:
            if not repeatable and not isinstance(error, httpx2.ConnectError):
                raise ConnectionLostError(f"no answer to {request.method} {request.path}: {error!r}") from error
            yield patience.pause(repr(error))
            continue
        if response is None:
            raise TypeError("a request was answered by a pause")
        if repeatable and (pause := away(response, patience)):
            yield pause
            continue
        if response.is_error:
            problem = ProblemError.of(response)
            if problem.body.get("code") == IN_PROGRESS:  # the one whose answer was lost
                yield patience.pause(problem.detail, problem.retry_after)
                continue
            raise problem
        patience.heard()
        return response


def read(model: type[Model], request: Request, patience: Patience, *, repeatable: bool = True) -> Operation[Model]:
    """Get the response of a request as a model."""
    response = yield from exchange(request, patience, repeatable=repeatable)
    return model.model_validate_json(response.content)


def create_session(fields: SessionOptions, patience: Patience) -> Operation[SessionInfo]:
    """A new session. Its key is fixed here: it is made once, however often it is asked for."""
    request = Request("POST", "/sessions", dict(fields), headers={"idempotency-key": str(uuid4())})
    return (yield from read(SessionInfo, request, patience))


class Page(BaseModel, Generic[T]):
    """One page of a list; without `next_cursor` it is the last."""

    data: list[T]
    next_cursor: str | None = None


class PageOperation(Protocol[T]):
    """Gets the page of a list behind a cursor, the first one without."""

    def __call__(self, cursor: str | None, patience: Patience, /) -> Operation[Page[T]]: ...


class Sessions(BaseModel):
    """One page of the list."""

    sessions: list[SessionInfo]
    next_cursor: str | None = None


def list_sessions(limit: int, cursor: str | None, patience: Patience) -> Operation[Page[SessionInfo]]:
    """One page of sessions, newest first."""
    query: dict[str, str | int | float] = {"limit": limit, **({"cursor": cursor} if cursor else {})}
    found = yield from read(Sessions, Request("GET", "/sessions", query=query), patience)
    return Page[SessionInfo](data=found.sessions, next_cursor=found.next_cursor)


def page(session_id: str, limit: int, before_sequence: int | None, patience: Patience) -> Operation[SessionPage]:
    """A session with a page of its messages."""
    before = {} if before_sequence is None else {"before_sequence": before_sequence}
    request = Request("GET", f"/sessions/{session_id}", query={"limit": limit, **before})
    return (yield from read(SessionPage, request, patience))


def ask(session_id: str, body: Json, timeout: float, patience: Patience) -> Operation[Answer]:
    """Send a message and wait for the turn that takes it.

    Raises:
        StillRunningError: the time-out has passed; the turn goes on.
    """
    ends_at = time.monotonic() + timeout
    while True:
        wait = max(0.0, min(POLL_S, ends_at - time.monotonic()))
        request = Request("POST", f"/sessions/{session_id}/ask", body, query={"wait": wait})
        response = yield from exchange(request, patience)
        if response.status_code == 200:
            return Answer.model_validate_json(response.content)
        if time.monotonic() >= ends_at:
            raise StillRunningError(session_id, Sent.model_validate_json(response.content).turn_id)


def send(session_id: str, body: Json, patience: Patience) -> Operation[Sent]:
    """Send a message and do not wait."""
    return (yield from read(Sent, Request("POST", f"/sessions/{session_id}/messages", body), patience))


def progress(session_id: str, turn_id: str, patience: Patience) -> Operation[Progress]:
    """How a turn stands."""
    return (yield from read(Progress, Request("GET", f"/sessions/{session_id}/turns/{turn_id}"), patience))


def wait(session_id: str, turn_id: str, timeout: float, patience: Patience) -> Operation[Progress]:
    """Wait until a turn has ended.

    Raises:
        StillRunningError: the time-out has passed; the turn goes on.
    """
    ends_at = time.monotonic() + timeout
    tag = ""
    while True:
        left = max(0.0, min(POLL_S, ends_at - time.monotonic()))
        headers = {"if-none-match": tag} if tag else {}
        request = Request("GET", f"/sessions/{session_id}/turns/{turn_id}", None, {"wait": left if tag else 0}, headers)
        response = yield from exchange(request, patience)
        if response.status_code == 200:
            tag = response.headers.get("etag", "")
            found = Progress.model_validate_json(response.content)
            if not found.running:
                return found
        if time.monotonic() >= ends_at:
            raise StillRunningError(session_id, turn_id)


class Turns(BaseModel):
    """A session's turns."""

    turns: list[Turn]


def turns(session_id: str, limit: int, patience: Patience) -> Operation[list[Turn]]:
    """Turns, newest first."""
    found = yield from read(Turns, Request("GET", f"/sessions/{session_id}/turns", query={"limit": limit}), patience)
    return found.turns


def cancel(session_id: str, patience: Patience) -> Operation[Cancelled]:
    """Stop what runs."""
    return (yield from read(Cancelled, Request("POST", f"/sessions/{session_id}/cancel"), patience))


def rename(session_id: str, title: str, patience: Patience) -> Operation[SessionInfo]:
    """Give a session a title."""
    return (yield from read(SessionInfo, Request("PATCH", f"/sessions/{session_id}", {"title": title}), patience))


def delete(path: str, patience: Patience) -> Operation[None]:
    """Delete a thing. A repeated request finds it gone, which is what was wanted."""
    try:
        yield from exchange(Request("DELETE", path), patience)
    except ProblemError as problem:
        if problem.status != 404:
            raise


class TurnStream:
    """The position in one turn's stream, over as many connections as it takes.

    Ask `request()`, open it as a stream, give the response to `opened()`, each server-sent event to `events()`, and a
    broken connection to `broken()`; end when `ended`.
    """

    def __init__(self, session_id: str, patience: Patience, body: Json | None, turn_id: str | None = None) -> None:
        self._path = f"/sessions/{session_id}/stream"
        self._patience = patience
        self._body = body  # None: the message has been sent, or there is none
        self._turn_id = turn_id
        self._last_id = ""
        self._opened_at: float | None = None
        self.ended = False

    def request(self) -> Request:
        """The request for the next connection: the message while nobody is known to have it, then the rest."""
        if self._body is not None:
            return Request("POST", self._path, self._body)
        query = {"turn_id": self._turn_id} if self._turn_id else {}
        return Request("GET", self._path, None, query, {"last-event-id": self._last_id} if self._last_id else {})

    def opened(self, response: httpx2.Response) -> Pause | Joined | None:
        """Take the head of a response in, its body too unless it is a stream: `None` when it is one.

        Raises:
            ProblemError: the API refuses the request.
            ConnectionLostError: the API is away.
        """
        if pause := away(response, self._patience):
            return pause
        if response.is_error:
            raise ProblemError.of(response)
        self._opened_at = time.monotonic()
        if response.status_code == 204:
            self.ended = True
            return Pause(0, "nothing runs")
        self._turn_id = response.headers.get("x-longhaul-turn-id", self._turn_id)
        self._body = None
        if response.status_code == 202:
            joined = orjson.loads(response.content)
            return Joined(joined["turn_id"], joined["message_id"])
        return None

    def events(self, sent: httpx2.ServerSentEvent) -> Iterator[Event]:
        """The events of a server-sent event: one, or none."""
        self._patience.heard()
        if sent.data == "[DONE]":
            self.ended = True
            return
        self._last_id = sent.id or self._last_id
        if sent.data:
            event = event_of(orjson.loads(sent.data))
            if isinstance(event, Started):
                self._turn_id = event.turn_id
            yield event
            if isinstance(event, Finished):
                self.ended = True

    def broken(self, why: str) -> Pause:
        """The pause before the next connection.

        Raises:
            ConnectionLostError: nothing has been heard for too long.
        """
        # A turn can be silent for long. Keep-alives are no events, so the connection's age says that the API was there.
        if self._opened_at is not None and time.monotonic() - self._opened_at > ALIVE_S:
            self._patience.heard()
        self._opened_at = None
        return self._patience.pause(why)
