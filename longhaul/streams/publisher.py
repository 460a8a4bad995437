"""The writing end of a turn's stream.

Publishing never delays a turn and never fails it. The first fault makes the stream `broken`: this publisher writes
nothing more, and the stream is withdrawn as soon as Redis can be reached, so that readers go over to stored rows. A
stream with a hole would show text that was never written, so there is no way to go on after a fault.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis

from longhaul.process_load import ProcessLoad
from longhaul.redis import FAULTS
from longhaul.streams import scripts
from longhaul.streams.events import FIELD, Part, stream_key
from longhaul.streams.parent_updates import ParentUpdates
from longhaul.streams.scripts import ActivityAttempt, SealStatus, WriteStatus

log = logging.getLogger(__name__)
DELTAS = frozenset({"text-delta", "reasoning-delta"})
BATCH = 500
# Readers hold whole entries in memory and writers whole batches, so neither grows with what a model says at once.
DELTA_MAX = 32_768
BATCH_CHARS = 1_048_576
CANCEL_AGAIN_S = 0.1


class Content(NamedTuple):
    """All parts of a stream, and the id of its newest entry."""

    parts: list[Part]
    newest_id: str


class StreamPublisher:
    """Writes one turn's parts, in order, from one activity; use it as an async context manager.

    Deltas that arrive within `flush_s` seconds of each other are joined into one entry: the first one is prompt, and
    the rest cost little. `load` lengthens that time when this process is busy. `published` is false if an earlier
    activity of the turn broke the stream. `max_bytes` bounds the stream (0: no bound).
    """

    def __init__(
        self,
        redis: "Redis",
        turn_id: str,
        *,
        flush_s: float,
        published: bool = True,
        attempt: ActivityAttempt | None = None,
        max_bytes: int = 0,
        parent: ParentUpdates | None = None,
        load: ProcessLoad | None = None,
    ) -> None:
        self._redis = redis
        self._turn_id = turn_id
        self._flush_s = flush_s
        self._load = load
        self._attempt = attempt or ActivityAttempt()
        self._max_bytes = max_bytes
        self._parent = parent
        self._newest_id = ""
        self._queue: list[tuple[str, Part]] = []
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._withdraw_at_exit = False
        self.broken = not published

    async def __aenter__(self) -> "StreamPublisher":
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.drain()
        finally:
            # Also when this activity is cancelled meanwhile: nothing may write after its activity has ended.
            if self._queue or not self._idle.is_set():
                self.broken = True
            while self._task is not None and not self._task.done():
                # The Redis client loses a cancellation that arrives while it checks a connection.
                self._task.cancel()
                await asyncio.wait([self._task], timeout=CANCEL_AGAIN_S)
        if self._withdraw_at_exit:
            await self.withdraw()

    def put(self, part: Part, *, once: str = "") -> None:
        """Queue a part; returns at once. Of all parts that a turn puts under the same name `once`, one is written."""
        if self.broken:
            return
        if part["type"] in DELTAS:
            self._put_delta(part)
        else:
            self._queue.append((once, dict(part)))
        self._idle.clear()
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def _put_delta(self, part: Part) -> None:
        text: str = part["delta"]
        last = self._queue[-1][1] if self._queue else {}
        if (last.get("type"), last.get("id")) == (part["type"], part["id"]) and len(last["delta"]) < DELTA_MAX:
            room = DELTA_MAX - len(last["delta"])
            last["delta"] += text[:room]
            text = text[room:]
        pieces = (text[at : at + DELTA_MAX] for at in range(0, len(text), DELTA_MAX))
        self._queue += [("", {**part, "delta": piece}) for piece in pieces]

    async def drain(self) -> None:
        """Wait until everything queued is written, or the stream is broken; deltas are not gathered meanwhile."""
        self._hurry.set()
        await self._idle.wait()
        self._hurry.clear()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue and not self.broken:
                await self._write(self._next_batch())
            self._idle.set()
            await self._gather()

    async def _gather(self) -> None:
        """Let deltas gather, unless the activity waits for the last of them."""
        stretch = self._load.stretch() if self._load is not None else 1.0
        with suppress(TimeoutError):
            async with asyncio.timeout(self._flush_s * stretch):
                await self._hurry.wait()

    def _next_batch(self) -> list[tuple[str, Part]]:
        size = count = 0
        for _, part in self._queue[:BATCH]:
            count += 1
            size += len(part.get("delta", ""))
            if size >= BATCH_CHARS:
                break
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    async def _write(self, batch: list[tuple[str, Part]]) -> None:
        try:
            status, newest_id = await scripts.write(
                self._redis, self._turn_id, self._attempt, self._newest_id, self._max_bytes, batch
            )
        except (*FAULTS, TypeError) as error:  # TypeError: a part that JSON cannot hold
            self._break(error)
            return
        if status is WriteStatus.WRITTEN:
            self._newest_id = newest_id
            if self._parent is not None:
                await self._parent.publish([part for _, part in batch])
        elif status is WriteStatus.ENDED:
            self._stop("it has ended", level=logging.INFO)
        else:
            self._stop(status.name)

    def _break(self, error: Exception) -> None:
        """Redis may or may not have what was written last, so nothing can follow it."""
        self._withdraw_at_exit = True
        self._stop(f"{type(error).__name__}: {error}")

    def _stop(self, reason: str, level: int = logging.WARNING) -> None:
        log.log(level, "publishing turn %s stops, readers get stored rows: %s", self._turn_id, reason)
        self.broken = True
        self._queue.clear()
        self._idle.set()

    async def begin(self) -> None:
        """Create the stream with its `start` part, unless it exists."""
        try:
            if not await scripts.begin(self._redis, self._turn_id):
                self._stop("it was withdrawn")
        except FAULTS as error:
            self._break(error)

    async def seal(self, parts: list[Part], outcome: Part | None, ttl_s: float, *, behind: str = "") -> bool:
        """Write the last parts, the outcome (an `abort` or `error` part, if any) and `finish`, all at once.

        A broken stream is withdrawn instead. False: the stream has an entry behind `behind`, so nothing was written.
        """
        await self.drain()
        if self.broken:
            await self.withdraw()
            return True
        try:
            status = await scripts.seal(self._redis, self._turn_id, parts, outcome, ttl_s=ttl_s, behind=behind)
        except FAULTS as error:
            self._break(error)
            return True
        if status is SealStatus.LOST:
            self._stop("it is gone from Redis")
        elif status is SealStatus.ENDED and self._parent is not None:
            await self._parent.publish(parts)
        return status is not SealStatus.CHANGED

    async def withdraw(self) -> None:
        """Send readers to the stored rows for good, unless the stream is sealed."""
        self._withdraw_at_exit = False
        self.broken = True
        try:
            await scripts.withdraw(self._redis, self._turn_id)
        except FAULTS as error:
            # Readers notice by themselves that rows are ahead of the stream, only later.
            log.warning("the stream of turn %s could not be withdrawn: %s", self._turn_id, error)

    async def open_step(self) -> list[Part]:
        """The stream from its newest `start-step` on; empty if it has none or is broken.

        Earlier attempts of this activity can write nothing more from here on.
        """
        if self.broken:
            return []
        try:
            if self._attempt.attempt > 1 and not await scripts.claim(self._redis, self._turn_id, self._attempt):
                self._stop("a later attempt of this activity writes it")
                return []
            return (await self._read_back_to("start-step")).parts
        except FAULTS as error:
            self._break(error)
            return []

    async def content(self) -> Content:
        """The whole stream, with all that this activity has published; empty if it is broken."""
        await self.drain()
        if self.broken:
            return Content([], "")
        try:
            return await self._read_back_to("start")
        except FAULTS as error:
            self._break(error)
            return Content([], "")

    async def _read_back_to(self, kind: str) -> Content:
        parts: list[Part] = []
        newest_id, until = "", "+"
        while True:
            entries: list[Any] = await self._redis.xrevrange(stream_key(self._turn_id), max=until, count=BATCH) or []
            for entry_id, fields in entries:
                newest_id = newest_id or entry_id.decode()
                part: Part = orjson.loads(fields[FIELD])
                parts.append(part)
                if part["type"] in (kind, "start"):
                    return Content(parts[::-1], newest_id)
            if len(entries) < BATCH:
                return Content(parts[::-1], newest_id)
            until = f"({entries[-1][0].decode()}"
