"""A client of the HTTP API for tests, which records every event of a stream."""

import asyncio
import json
import time
from typing import Any, NamedTuple
from uuid import uuid4

import httpx2

from testkit.streamlog import DONE, StreamEvent, StreamLog
from testkit.wait import LIMIT_S, until

FINAL = ("completed", "failed", "cancelled")


class Answer(NamedTuple):
    """Status and JSON of a response."""

    status: int
    body: dict[str, Any]


class LiveStream:
    """A stream that is being read in the background."""

    def __init__(self, log: StreamLog, task: asyncio.Task[None]) -> None:
        self.log = log
        self._task = task

    async def until_seen(self, kind: str, count: int = 1, limit: float = LIMIT_S) -> None:
        """Wait until `count` parts of a type have arrived."""

        def seen() -> bool:
            if self._task.done() and not self._task.cancelled() and self._task.exception():
                self._task.result()
            return self.log.count(kind) >= count

        await until(seen, limit=limit, what=f"{count} {kind} on the stream (came: {self.log.types[-10:]})", every=0.005)

    async def done(self, limit: float = LIMIT_S) -> StreamLog:
        """Wait for its end."""
        try:
            await asyncio.wait_for(asyncio.shield(self._task), limit)
        except TimeoutError:
            self._task.cancel()
            raise AssertionError(f"the stream did not end within {limit:g} s; last: {self.log.types[-10:]}") from None
        return self.log

    async def cut(self) -> StreamLog:
        """Close the connection, as a browser tab does; the events so far."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.log


class RecordingClient:
    """Calls the routes that tests need."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def close(self) -> None:
        await self.http.aclose()

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        """Any route under /v1."""
        response = await self.http.request(method, f"/v1{path}", **options)
        return Answer(response.status_code, response.json() if response.content else {})

    async def _good(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        status, body = await self.call(method, path, **options)
        assert 200 <= status < 300, f"{method} {path}: {status} {body}"
        return body

    async def create_session(self, **fields: Any) -> str:
        """A new session's id."""
        return str((await self._good("POST", "/sessions", json=fields))["id"])

    async def post(self, session: str, text: str, message_id: str | None = None, **fields: Any) -> Answer:
        """Post a message without a stream."""
        body = {"message": text, "message_id": message_id or str(uuid4()), **fields}
        return await self.call("POST", f"/sessions/{session}/messages", json=body)

    async def start(self, session: str, text: str, message_id: str | None = None, **fields: Any) -> str:
        """Post a message that must be accepted; the turn that it started or joined."""
        status, body = await self.post(session, text, message_id, **fields)
        assert status == 202, f"{status} {body}"
        return str(body["turn_id"])

    async def stream(
        self, session: str, text: str, message_id: str | None = None, *, cut_after: int | None = None, **fields: Any
    ) -> StreamLog:
        """Post a message and read its stream to the end, or until `cut_after` events have come."""
        body = {"message": text, "message_id": message_id or str(uuid4()), **fields}
        log = StreamLog()
        await self._read(log, "POST", f"/v1/sessions/{session}/stream", cut_after, json=body)
        return log

    async def open(self, session: str, text: str, message_id: str | None = None, **fields: Any) -> LiveStream:
        """Post a message and read its stream in the background; returns when the answer has begun."""
        body = {"message": text, "message_id": message_id or str(uuid4()), **fields}
        log = StreamLog()
        task = asyncio.create_task(self._read(log, "POST", f"/v1/sessions/{session}/stream", None, json=body))
        await until(lambda: log.status or task.done(), what="POST …/stream answers", every=0.005)
        if task.done():
            task.result()
        return LiveStream(log, task)

    async def resume(
        self, session: str, log: StreamLog | None = None, *, cut_after: int | None = None, turn_id: str = ""
    ) -> StreamLog:
        """Resume a stream behind its last event id; a stream without events from the turn's start."""
        log = log or StreamLog()
        headers = {"Last-Event-ID": log.last_id} if log.last_id else {}
        path = f"/v1/sessions/{session}/stream" + (f"?turn_id={turn_id}" if turn_id else "")
        await self._read(log, "GET", path, cut_after, headers=headers)
        return log

    async def _read(self, log: StreamLog, method: str, path: str, cut_after: int | None, **options: Any) -> None:
        left = cut_after
        async with self.http.stream(method, path, **options) as response:
            log.status, log.headers = response.status_code, dict(response.headers)
            log.connections += 1
            if not log.streamed:
                content = await response.aread()
                log.body = json.loads(content) if content else {}
                return
            buffer = b""
            async for chunk in response.aiter_raw():
                buffer += chunk.replace(b"\r\n", b"\n")
                while b"\n\n" in buffer:
                    block, buffer = buffer.split(b"\n\n", 1)
                    if _note(log, block) and left is not None:
                        left -= 1
                        if left <= 0:
                            return

    async def progress(self, session: str, turn_id: str, wait: float | None = None) -> dict[str, Any]:
        """The progress of a turn."""
        params = {"wait": str(wait)} if wait else {}
        return await self._good("GET", f"/sessions/{session}/turns/{turn_id}", params=params)

    async def wait_for_turn(self, session: str, turn_id: str, limit: float = LIMIT_S) -> dict[str, Any]:
        """Poll until a turn has ended; its last progress."""

        async def ended() -> dict[str, Any] | None:
            found = await self.progress(session, turn_id)
            return found if found["status"] in FINAL else None

        return await until(ended, limit=limit, what=f"turn {turn_id} of session {session} ends", every=0.1)

    async def until_idle(self, session: str, limit: float = LIMIT_S) -> None:
        """Wait until the session's turn and its workflow have ended."""

        async def idle() -> bool:
            return (await self.session(session, limit=1))["active_turn"] is None

        await until(idle, limit=limit, what=f"nothing runs in session {session}")

    async def session(self, session: str, **params: Any) -> dict[str, Any]:
        """The session with a page of its messages."""
        return await self._good("GET", f"/sessions/{session}", params=params)

    async def messages(self, session: str) -> list[dict[str, Any]]:
        """The whole conversation, oldest first, read page by page."""
        found: list[dict[str, Any]] = []
        page = await self.session(session, limit=200)
        found = page["messages"]
        while page["has_more_messages"]:
            page = await self.session(session, limit=200, before_sequence=page["oldest_sequence"])
            found = page["messages"] + found
        return found

    async def pending(self, session: str) -> list[dict[str, Any]]:
        """Messages that no turn has taken yet."""
        found: list[dict[str, Any]] = (await self._good("GET", f"/sessions/{session}/messages/pending"))["messages"]
        return found

    async def turns(self, session: str) -> list[dict[str, Any]]:
        """The session's turns, newest first."""
        found: list[dict[str, Any]] = (await self._good("GET", f"/sessions/{session}/turns"))["turns"]
        return found

    async def cancel(self, session: str) -> Answer:
        """Stop."""
        return await self.call("POST", f"/sessions/{session}/cancel")


def _note(log: StreamLog, block: bytes) -> bool:
    """Record one SSE block; False for a comment."""
    id_: str | None = None
    data: list[str] = []
    for line in block.decode().split("\n"):
        name, _, value = line.partition(":")
        if name == "id":
            id_ = value.removeprefix(" ")
        elif name == "data":
            data.append(value.removeprefix(" "))
    log.after = id_ or log.after
    if not data:
        log.comments += 1
        return False
    text = "\n".join(data)
    log.events.append(StreamEvent(id_, None if text == DONE else json.loads(text), time.monotonic()))
    return True
