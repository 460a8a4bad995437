"""The client for asyncio."""

import asyncio
from collections.abc import AsyncIterator
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
from longhaul_client.schedules import AsyncSchedules
from longhaul_client.webhooks import AsyncWebhooks, HappenedEvents, happened

T = TypeVar("T")


class AsyncLonghaul:
    """Speaks to one API as one user. `patience`: seconds without a sign of life after which it gives up."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8700",
        token: str = "",
        *,
        patience: float = 60.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.AsyncClient(
            base_url=f"{url.rstrip('/')}/v1", headers=headers, timeout=operations.TIMEOUT, transport=transport
        )
        self._patience = patience
        self.sessions = AsyncSessions(self)
        self.schedules = AsyncSchedules(self)
        self.webhooks = AsyncWebhooks(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def events(self, after: datetime | None = None, cursor: str | None = None) -> HappenedEvents:
        """What happened since a moment, or behind a cursor: turns that ended, approvals that are wanted …"""
        return await self.run(happened(after, cursor, self.patience()))

    def patience(self) -> Patience:
        return Patience(self._patience)

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation of `operations`."""
        try:
            step = next(operation)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = operation.send(None)
                    continue
                try:
                    response = await self._http.send(self._build(step))
                except httpx2.TransportError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    async def pages(self, get_page: PageOperation[T]) -> AsyncIterator[T]:
        """All entries of a list, page by page."""
        cursor = None
        while True:
            page = await self.run(get_page(cursor, self.patience()))
            for entry in page.data:
                yield entry
            cursor = page.next_cursor
            if cursor is None:
                return

    async def follow(self, stream: TurnStream) -> AsyncIterator[Event]:
        """The events of a turn, over as many connections as that takes."""
        while not stream.ended:
            try:
                response = await self._http.send(self._build(stream.request()), stream=True)
                try:
                    if response.status_code != 200:
                        await response.aread()
                    step = stream.opened(response)
                    if step is None:
                        async for sent in httpx2.EventSource(response, max_event_size=None):
                            for event in stream.events(sent):
                                yield event
                            if stream.ended:
                                return
                        step = stream.broken("the stream ended early")
                finally:
                    await response.aclose()
            except httpx2.TransportError as error:
                step = stream.broken(repr(error))
            if not isinstance(step, Pause):
                yield step
            elif not stream.ended:
                yield Reconnecting(step.why)
                await asyncio.sleep(step.seconds)

    def _build(self, request: Request) -> httpx2.Request:
        return self._http.build_request(
            request.method,
            request.path,
            json=request.json,
            params=dict(request.query),
            headers=dict(request.headers),
        )


class AsyncSessions:
    """The user's sessions."""

    def __init__(self, client: AsyncLonghaul) -> None:
        self._client = client

    async def create(self, **fields: Unpack[SessionOptions]) -> "AsyncSession":
        """A new session."""
        made = await self._client.run(operations.create_session(fields, self._client.patience()))
        return AsyncSession(self._client, made.id)

    def get(self, session_id: str) -> "AsyncSession":
        """A session that exists; nothing is asked of the API yet."""
        return AsyncSession(self._client, session_id)

    def list(self, page_size: int = 50) -> AsyncIterator[SessionInfo]:
        """All sessions, newest first, page by page."""
        return self._client.pages(partial(operations.list_sessions, page_size))


class AsyncSession:
    """One session."""

    def __init__(self, client: AsyncLonghaul, session_id: str) -> None:
        self._client = client
        self.id = session_id

    async def ask(self, text: str, *, timeout: float = 300.0, **options: Unpack[MessageOptions]) -> Answer:
        """Send a message and wait for the answer of the turn that takes it. `timeout`: seconds.

        Options of all ways to send: `message_id` (uuid), `mode`, `tier`, `context` (`{url, content}`), `on_busy` (what
        becomes of the message while a turn runs), `more`.

        Raises:
            StillRunningError: the time-out has passed; the turn goes on.
            ProblemError: the API refuses the message.
            ConnectionLostError: the API is away.
        """
        body = message_body(text, options)
        return await self._client.run(operations.ask(self.id, body, timeout, self._client.patience()))

    async def send(self, text: str, **options: Unpack[MessageOptions]) -> Sent:
        """Send a message and do not wait: it starts a turn, or joins the one that runs."""
        body = message_body(text, options)
        return await self._client.run(operations.send(self.id, body, self._client.patience()))

    def stream(self, text: str, **options: Unpack[MessageOptions]) -> AsyncIterator[Event]:
        """Send a message and yield the events of the turn that takes it. Leaving the loop does not stop the turn."""
        body = message_body(text, options)
        return self._client.follow(TurnStream(self.id, self._client.patience(), body))

    def resume(self, turn_id: str | None = None) -> AsyncIterator[Event]:
        """The events of the running turn, or of a certain one, from its start. Nothing where none runs."""
        return self._client.follow(TurnStream(self.id, self._client.patience(), None, turn_id))

    async def wait(self, turn_id: str, *, timeout: float = 300.0) -> Progress:
        """Wait until a turn has ended. `timeout`: seconds.

        Raises:
            StillRunningError: the time-out has passed; the turn goes on.
        """
        return await self._client.run(operations.wait(self.id, turn_id, timeout, self._client.patience()))

    async def progress(self, turn_id: str) -> Progress:
        """How a turn stands."""
        return await self._client.run(operations.progress(self.id, turn_id, self._client.patience()))

    async def cancel(self) -> Cancelled:
        """Stop what runs, and wait until it has ended."""
        return await self._client.run(operations.cancel(self.id, self._client.patience()))

    async def turns(self, limit: int = 50) -> list[Turn]:
        """Its turns, newest first."""
        return await self._client.run(operations.turns(self.id, limit, self._client.patience()))

    async def page(self, limit: int = 50, before_sequence: int | None = None) -> SessionPage:
        """The session with a page of its messages, the newest first."""
        return await self._client.run(operations.page(self.id, limit, before_sequence, self._client.patience()))

    async def rename(self, title: str) -> SessionInfo:
        """Give it a title for good."""
        return await self._client.run(operations.rename(self.id, title, self._client.patience()))

    async def delete(self) -> None:
        """Stop what runs in it and delete it with all its rows."""
        await self._client.run(operations.delete(f"/sessions/{self.id}", self._client.patience()))
