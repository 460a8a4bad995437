"""The client for programs without asyncio: the same as the asynchronous one, call for call."""

import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx2

from longhaul_client import operations
from longhaul_client.events import Event, Reconnecting
from longhaul_client.models import Answer, Cancelled, Progress, Sent, SessionInfo, SessionPage, Turn
from longhaul_client.operations import (
    MessageOptions,
    Operation,
    PageOperation,
    Patience,
    Pause,
    Request,
    SessionOptions,
    TurnStream,
    message_body,
)
from longhaul_client.schedules import Schedules
from longhaul_client.webhooks import HappenedEvents, Webhooks, happened

T = TypeVar("T")


class Longhaul:
    """Speaks to one API as one user. `patience`: seconds without a sign of life after which it gives up."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8700",
        token: str = "",
        *,
        patience: float = 60.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(
            base_url=f"{url.rstrip('/')}/v1", headers=headers, timeout=operations.TIMEOUT, transport=transport
        )
        self._patience = patience
        self.sessions = Sessions(self)
        self.schedules = Schedules(self)
        self.webhooks = Webhooks(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def events(self, after: datetime | None = None, cursor: str | None = None) -> HappenedEvents:
        """What happened since a moment, or behind a cursor: turns that ended, approvals that are wanted …"""
        return self.run(happened(after, cursor, self.patience()))

    def patience(self) -> Patience:
        return Patience(self._patience)

    def run(self, operation: Operation[T]) -> T:
        """Run an operation of `operations`."""
        try:
            step = next(operation)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = operation.send(None)
                    continue
                try:
                    response = self._http.send(self._build(step))
                except httpx2.TransportError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    def pages(self, get_page: PageOperation[T]) -> Iterator[T]:
        """All entries of a list, page by page."""
        cursor = None
        while True:
            page = self.run(get_page(cursor, self.patience()))
            yield from page.data
            cursor = page.next_cursor
            if cursor is None:
                return

    def follow(self, stream: TurnStream) -> Iterator[Event]:
        """The events of a turn, over as many connections as that takes."""
        while not stream.ended:
            try:
                response = self._http.send(self._build(stream.request()), stream=True)
                try:
                    if response.status_code != 200:
                        response.read()
                    step = stream.opened(response)
                    if step is None:
                        for sent in httpx2.EventSource(response, max_event_size=None):
                            yield from stream.events(sent)
                            if stream.ended:
                                return
                        step = stream.broken("the stream ended early")
                finally:
                    response.close()
            except httpx2.TransportError as error:
                step = stream.broken(repr(error))
            if not isinstance(step, Pause):
                yield step
            elif not stream.ended:
                yield Reconnecting(step.why)
                time.sleep(step.seconds)

    def _build(self, request: Request) -> httpx2.Request:
        return self._http.build_request(
            request.method,
            request.path,
            json=request.json,
            params=dict(request.query),
            headers=dict(request.headers),
        )


class Sessions:
    """The user's sessions."""

    def __init__(self, client: Longhaul) -> None:
        self._client = client

    def create(self, **fields: Unpack[SessionOptions]) -> "Session":
        """A new session."""
        made = self._client.run(operations.create_session(fields, self._client.patience()))
        return Session(self._client, made.id)

    def get(self, session_id: str) -> "Session":
        """A session that exists; nothing is asked of the API yet."""
        return Session(self._client, session_id)

    def list(self, page_size: int = 50) -> Iterator[SessionInfo]:
        """All sessions, newest first, page by page."""
        return self._client.pages(partial(operations.list_sessions, page_size))


class Session:
    """One session."""

    def __init__(self, client: Longhaul, session_id: str) -> None:
        self._client = client
        self.id = session_id

    def ask(self, text: str, *, timeout: float = 300.0, **options: Unpack[MessageOptions]) -> Answer:
        """Send a message and wait for the answer of the turn that takes it. `timeout`: seconds.

        Options of all ways to send: `message_id` (uuid), `mode`, `tier`, `context` (`{url, content}`), `on_busy` (what
        becomes of the message while a turn runs), `more`.

        Raises:
            StillRunningError: the time-out has passed; the turn goes on.
            ProblemError: the API refuses the message.
            ConnectionLostError: the API is away.
        """
        body = message_body(text, options)
        return self._client.run(operations.ask(self.id, body, timeout, self._client.patience()))

    def send(self, text: str, **options: Unpack[MessageOptions]) -> Sent:
        """Send a message and do not wait: it starts a turn, or joins the one that runs."""
        body = message_body(text, options)
        return self._client.run(operations.send(self.id, body, self._client.patience()))

    def stream(self, text: str, **options: Unpack[MessageOptions]) -> Iterator[Event]:
        """Send a message and yield the events of the turn that takes it. Leaving the loop does not stop the turn."""
        body = message_body(text, options)
        return self._client.follow(TurnStream(self.id, self._client.patience(), body))

    def resume(self, turn_id: str | None = None) -> Iterator[Event]:
        """The events of the running turn, or of a certain one, from its start. Nothing where none runs."""
        return self._client.follow(TurnStream(self.id, self._client.patience(), None, turn_id))

    def wait(self, turn_id: str, *, timeout: float = 300.0) -> Progress:
        """Wait until a turn has ended. `timeout`: seconds.

        Raises:
            StillRunningError: the time-out has passed; the turn goes on.
        """
        return self._client.run(operations.wait(self.id, turn_id, timeout, self._client.patience()))

    def progress(self, turn_id: str) -> Progress:
        """How a turn stands."""
        return self._client.run(operations.progress(self.id, turn_id, self._client.patience()))

    def cancel(self) -> Cancelled:
        """Stop what runs, and wait until it has ended."""
        return self._client.run(operations.cancel(self.id, self._client.patience()))

    def turns(self, limit: int = 50) -> list[Turn]:
        """Its turns, newest first."""
        return self._client.run(operations.turns(self.id, limit, self._client.patience()))

    def page(self, limit: int = 50, before_sequence: int | None = None) -> SessionPage:
        """The session with a page of its messages, the newest first."""
        return self._client.run(operations.page(self.id, limit, before_sequence, self._client.patience()))

    def rename(self, title: str) -> SessionInfo:
        """Give it a title for good."""
        return self._client.run(operations.rename(self.id, title, self._client.patience()))

    def delete(self) -> None:
        """Stop what runs in it and delete it with all its rows."""
        self._client.run(operations.delete(f"/sessions/{self.id}", self._client.patience()))
