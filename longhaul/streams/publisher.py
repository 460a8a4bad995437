"""The writing end of a turn's stream.

Publishing never delays a turn and never fails it. The first fault makes the stream `broken`: nothing more is written,
the entries are removed as soon as Redis can be reached, and readers go over to stored rows. A stream with a hole in it
would show people text that nobody wrote, so there is no way to go on after one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from longhaul.streams.events import (
    FIELD,
    FINISH_ID,
    OUTCOME_ID,
    START_ID,
    UNSEALED_TTL_S,
    encode,
    fence_key,
    start_part,
    stream_key,
)
from longhaul.streams.parent_updates import ParentNews

log = logging.getLogger(__name__)
DELTAS = frozenset({"text-delta", "reasoning-delta"})
BATCH = 500
# Redis' words for an id that is there already, and for anything behind `finish`.
STORED, SEALED = "equal or smaller", "exhausted the last possible ID"
# Readers hold whole entries in memory and writers whole batches, so neither grows with what a model says at once.
DELTA_MAX = 32_768
BATCH_CHARS = 1_048_576
# Appends parts, all or none: not into a stream that has gone (0), and not from a try that another has replaced (-1).
WRITE = """
local newest = redis.call('HGET', KEYS[2], ARGV[1])
if newest and tonumber(newest) > tonumber(ARGV[2]) then return -1 end
for i = 3, #ARGV do
    if not redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 'e', ARGV[i]) then return 0 end
end
return 1
"""
# Shuts out the tries before this one; -1 if a later one has been here.
CLAIM = """
local newest = redis.call('HGET', KEYS[1], ARGV[1])
if newest and tonumber(newest) > tonumber(ARGV[2]) then return -1 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


@dataclass(frozen=True)
class Writer:
    """Who writes: a try of an activity. As soon as a later try looks at the stream, earlier ones are shut out.

    A worker that hung and was taken for dead may come back to life and go on where it stopped.
    """

    activity: str = ""
    attempt: int = 1


class StreamPublisher:
    """Writes one turn's parts, in order, from one activity; use it as an async context manager.

    Deltas that come faster than `flush_s` seconds are joined into one entry, which keeps the first one prompt and the
    rest cheap.
    """

    def __init__(
        self,
        redis: "Redis",
        turn_id: str,
        *,
        flush_s: float,
        published: bool = True,
        writer: Writer | None = None,
        news: ParentNews | None = None,
    ) -> None:
        self._redis = redis
        self._fence = fence_key(turn_id)
        self._writer = writer or Writer()
        self._replaced = False
        self._key = stream_key(turn_id)
        self._turn_id = turn_id
        self._flush_s = flush_s
        self._news = news
        self._queue: list[dict[str, Any]] = []
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self.broken = not published

    async def __aenter__(self) -> "StreamPublisher":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def put(self, part: dict[str, Any]) -> None:
        """Queue a part; returns at once."""
        if self.broken:
            return
        if part["type"] in DELTAS:
            self._put_delta(part)
        else:
            self._queue.append(dict(part))
        self._idle.clear()
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def _put_delta(self, part: dict[str, Any]) -> None:
        text: str = part["delta"]
        last = self._queue[-1] if self._queue else {}
        if (last.get("type"), last.get("id")) == (part["type"], part["id"]) and len(last["delta"]) < DELTA_MAX:
            room = DELTA_MAX - len(last["delta"])
            last["delta"] += text[:room]
            text = text[room:]
        self._queue += [{**part, "delta": text[at : at + DELTA_MAX]} for at in range(0, len(text), DELTA_MAX)]

    async def drain(self) -> None:
        """Wait until everything queued is written, or the stream is broken; nothing is gathered any longer."""
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
        """Let deltas come together, unless somebody waits for the end of it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._flush_s):
                await self._hurry.wait()

    def _next_batch(self) -> list[dict[str, Any]]:
        size = count = 0
        for part in self._queue[:BATCH]:
            count += 1
            size += len(part.get("delta", ""))
            if size >= BATCH_CHARS:
                break
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    async def _write(self, batch: list[dict[str, Any]]) -> None:
        try:
            given: list[Any] = [self._writer.activity, self._writer.attempt, *(encode(part) for part in batch)]
            wrote = await cast("Awaitable[int]", self._redis.eval(WRITE, 2, self._key, self._fence, *given))
        except (RedisError, OSError, TimeoutError, TypeError) as error:  # TypeError: a part that JSON cannot hold
            if SEALED not in str(error):  # else an earlier try has sealed it: it is whole, and this is nothing new
                await self._break(error)
            return
        if wrote < 0:
            await self._give_way()
        elif not wrote:
            await self._break(RedisError("the stream is gone from Redis"))
        elif self._news is not None:
            await self._news.tell(batch)

    async def _break(self, error: Exception) -> None:
        log.warning("stream of turn %s is broken, readers get stored rows: %s", self._turn_id, error)
        self.broken = True
        self._queue.clear()
        self._idle.set()

    async def begin(self) -> None:
        """Create the stream with its `start` part, unless it has one."""
        await begin_stream(self._redis, self._turn_id)

    async def seal(self, outcome: dict[str, Any] | None, ttl_s: float) -> None:
        """Write `outcome` (an `abort` or `error` part, if any) and `finish`, each once whatever is retried."""
        await self.drain()
        try:
            if self._replaced:
                return
            if self.broken:
                await self._redis.delete(self._key)
                return
            for entry_id, part in ((OUTCOME_ID, outcome), (FINISH_ID, {"type": "finish"})):
                if part is not None:
                    await _add_once(self._redis, self._key, part, entry_id)
            await self._redis.expire(self._key, int(ttl_s) or 1)
        except (RedisError, OSError, TimeoutError) as error:
            await self._break(error)

    async def since_step(self) -> list[dict[str, Any]]:
        """What the stream has from the newest `start-step` on; empty if there is none, or none that readers get."""
        if self.broken:
            return []
        try:
            if self._writer.attempt > 1 and await self._claim() < 0:
                await self._give_way()
                return []
            return await _tail(self._redis, self._key)
        except (RedisError, OSError, TimeoutError) as error:
            await self._break(error)
            return []

    async def _claim(self) -> int:
        given = [self._writer.activity, str(self._writer.attempt), str(UNSEALED_TTL_S)]
        return await cast("Awaitable[int]", self._redis.eval(CLAIM, 1, self._fence, *given))

    async def _give_way(self) -> None:
        self._replaced = True
        await self._break(RedisError("a later try of this activity writes it now"))


async def begin_stream(redis: "Redis", turn_id: str) -> None:
    """Create a turn's stream with its `start` part, unless it has one; a Redis that is away is no error."""
    try:
        await _add_once(redis, stream_key(turn_id), start_part(turn_id), START_ID, create=True)
        await redis.expire(stream_key(turn_id), UNSEALED_TTL_S)
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("stream of turn %s could not be started, readers get stored rows: %s", turn_id, error)


async def _add_once(redis: "Redis", key: str, part: dict[str, Any], entry_id: str, *, create: bool = False) -> None:
    try:
        await redis.xadd(key, {FIELD: encode(part)}, id=entry_id, nomkstream=not create)
    except ResponseError as error:
        if STORED not in str(error) and SEALED not in str(error):
            raise


async def _tail(redis: "Redis", key: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    until = "+"
    while True:
        entries: list[Any] = await redis.xrevrange(key, max=until, count=BATCH) or []
        for _, fields in entries:
            part: dict[str, Any] = orjson.loads(fields[FIELD])
            parts.append(part)
            if part["type"] in ("start-step", "start"):
                return parts[::-1]
        if len(entries) < BATCH:
            return parts[::-1]
        until = f"({entries[-1][0].decode()}"


def outputs_in(parts: Iterable[dict[str, Any]]) -> set[str]:
    """Ids of the tool calls whose output is among `parts`."""
    return {part["toolCallId"] for part in parts if part["type"].startswith("tool-output-")}
