"""One reader of Redis for all who follow turns in this process: one connection, however many viewers and turns.

The reader blocks in one XREAD over the streams of all turns that are followed. Each turn has a feed, which keeps its
newest entries for a while. Viewers take them at their own pace; one that is too slow, or comes late, reads what the
feed does not have (any more) from Redis by its own position. So no viewer waits for another, and memory is bounded by
turns, not by viewers.
"""

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from uuid import uuid4

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ClusterCrossSlotError
from redis.exceptions import TimeoutError as RedisTimeoutError

from longhaul.errors import LonghaulError
from longhaul.redis import BLOCK_S, FAULTS
from longhaul.streams.events import FIELD, FINISH_ID, stream_key
from longhaul.streams.looks import SharedLooks
from longhaul.streams.viewer import DELTA_PREFIXES

log = logging.getLogger(__name__)
# Entries older than the newest ones of this size, with what Python needs for each, are left to Redis.
KEPT_BYTES = 65_536
ENTRY_BYTES = 200
# One read takes at most so many entries of each stream.
BATCH = 64
# A read of many streams costs some microseconds for each. A pause in this proportion lets their entries gather.
PAUSE_PER_TURN_S = 30e-6
SHORTEST_PAUSE_S = 0.001
WAKE_TTL_S = 60
CANCEL_AGAIN_S = 0.1
# So many viewers at once read from Redis what the feeds do not have.
RANGES_AT_ONCE = 20
_FINISH = FINISH_ID.encode()

T = TypeVar("T")
Entry = tuple[bytes, bytes]
Entries = list[Entry]


class StreamLostError(LonghaulError):
    """This turn's stream cannot be served (any further) from Redis."""


class Signal:
    """Wakes all who wait. Its count tells who looked before the newest one, so that none is missed in between."""

    def __init__(self) -> None:
        self.count = 0
        self.at = 0.0  # `time.monotonic()`
        self._event = asyncio.Event()

    def set(self) -> None:
        self.count += 1
        self.at = time.monotonic()
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seen: int, timeout: float) -> None:
        """Wait until the count is not `seen`, or for `timeout` seconds."""
        if self.count == seen:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._event.wait()


class TurnFeed:
    """The newest entries of one turn's stream, and what its followers look up together."""

    def __init__(self, turn_id: str) -> None:
        self.turn_id = turn_id
        self.key = stream_key(turn_id)
        self.looks = SharedLooks()
        self.followers = 0
        self.newest: bytes | None = None  # the id that was read last; None: nobody has asked for entries yet
        self._lost: str | None = None
        self._entries: Entries = []  # all that came behind `_floor`
        self._floor = b""
        self._first = 0  # the number of the first of them
        self._size = 0
        self.changed = Signal()
        #: The same without deltas: something may be new about how the turn stands.
        self.news = Signal()

    @property
    def lost(self) -> bool:
        return self._lost is not None

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self.newest == _FINISH

    @property
    def kept_bytes(self) -> int:
        """About how much memory its entries take."""
        return self._size

    def check(self) -> None:
        """Raise an error if the stream cannot be read any more.

        Raises:
            StreamLostError: Redis did not answer.
        """
        if self._lost is not None:
            raise StreamLostError(self._lost)

    def number_behind(self, position: bytes) -> int | None:
        """The number of the entry behind this id; None if the feed cannot say."""
        if self.newest is None:
            return None
        at = _order(position)
        if not _order(self._floor) <= at <= _order(self.newest):
            return None
        return self._first + bisect_right(self._entries, at, key=lambda entry: _order(entry[0]))

    def entries_from(self, number: int, max_bytes: int) -> Entries | None:
        """The entries from this number on, one at least; empty if there are none yet, None if they are gone."""
        if number < self._first:
            return None
        found: Entries = []
        for entry in self._entries[number - self._first :]:
            max_bytes -= len(entry[1])
            if found and max_bytes < 0:
                break
            found.append(entry)
        return found

    async def look(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        """Look something up, together with all followers whose silent read ends at about this moment."""
        return await self.looks.look(key, make, since=time.monotonic() - BLOCK_S / 2)

    def begin(self, position: bytes) -> None:
        """Begin behind this id."""
        self.newest = self._floor = position

    def add(self, entries: Entries) -> None:
        """Add what was read, and forget what is old. The newest batch stays whole: all viewers are about to take it."""
        gone = 0
        while self._size > KEPT_BYTES and gone < len(self._entries):
            self._size -= len(self._entries[gone][1]) + ENTRY_BYTES
            gone += 1
        if gone:
            self._floor = self._entries[gone - 1][0]
            self._first += gone
            del self._entries[:gone]
        self._entries += entries
        self._size += sum(len(part) + ENTRY_BYTES for _, part in entries)
        self.newest = entries[-1][0]
        self.changed.set()
        if not all(part.startswith(DELTA_PREFIXES) for _, part in entries):
            self.news.set()

    def lose(self, reason: str) -> None:
        """Send all viewers to the rows."""
        self._lost = reason
        self.changed.set()
        self.news.set()


class TurnFeeds:
    """The feeds of all turns that are followed in this process."""

    def __init__(self, redis: "Redis") -> None:
        self.redis = redis
        self.catching_up = asyncio.Semaphore(RANGES_AT_ONCE)
        self._feeds: dict[str, TurnFeed] = {}
        self._reader = _Reader(self, redis, f"longhaul:wake:{uuid4()}")
        # A Redis Cluster needs one for each turn. Behind an endpoint that routes, it shows itself by its first refusal.
        self._readers: dict[TurnFeed, _Reader] | None = {} if isinstance(redis, RedisCluster) else None

    @contextmanager
    def follow(self, turn_id: str) -> Iterator[TurnFeed]:
        """The feed of a turn. The reader leaves a stream alone when its last follower has gone."""
        feed = self._feeds.get(turn_id)
        if feed is None or feed.lost:  # Redis may be back, so the next viewer tries again.
            feed = self._feeds[turn_id] = TurnFeed(turn_id)
        feed.followers += 1
        try:
            yield feed
        finally:
            feed.followers -= 1
            if not feed.followers:
                if self._feeds.get(turn_id) is feed:
                    del self._feeds[turn_id]
                self._reader.remove(feed)
                if self._readers is not None and feed in self._readers:
                    self._readers.pop(feed).remove(feed)

    def begin(self, feed: TurnFeed, position: bytes) -> None:
        """Let a feed be read behind this id, unless it is already."""
        if feed.newest is None and feed.followers:
            feed.begin(position)
            self._reader_of(feed).add(feed)

    def _reader_of(self, feed: TurnFeed) -> "_Reader":
        if self._readers is None:
            return self._reader
        return self._readers.setdefault(feed, _Reader(self, self.redis, None))

    def separate(self, feeds: list[TurnFeed]) -> None:
        """Read each turn on a connection of its own: this Redis is a cluster, where turns lie in different slots."""
        self._readers = {} if self._readers is None else self._readers
        for feed in feeds:
            self._reader_of(feed).add(feed)

    def nudge(self, turn_id: str) -> None:
        """Let those look again who wait for news of a turn, because this process has just changed something."""
        if feed := self._feeds.get(turn_id):
            feed.news.set()

    def fault(self, error: BaseException) -> None:
        """Redis does not answer: send all viewers of this process to the rows."""
        for feed in self._feeds.values():
            feed.lose(f"{type(error).__name__}: {error}")

    async def aclose(self) -> None:
        """End the readers."""
        readers = [self._reader, *(self._readers or {}).values()]
        await asyncio.gather(*(reader.aclose() for reader in readers))


class _Reader:
    """Reads the streams of several feeds, as long as there are any. It ends at most `BLOCK_S` behind the last one."""

    def __init__(self, feeds: TurnFeeds, redis: "Redis", wake_key: str | None) -> None:
        self._all = feeds
        self._redis = redis
        self._wake_key = wake_key
        self._woken = "0-0"
        self._feeds: dict[str, TurnFeed] = {}
        self._task: asyncio.Task[None] | None = None
        self._blocked = False
        self._wakes: set[asyncio.Task[None]] = set()

    def add(self, feed: TurnFeed) -> None:
        self._feeds[feed.key] = feed
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        elif self._blocked and self._wake_key is not None:
            self._blocked = False  # Once is enough.
            wake = asyncio.create_task(self._wake(self._wake_key))
            self._wakes.add(wake)
            wake.add_done_callback(self._wakes.discard)

    def remove(self, feed: TurnFeed) -> None:
        if self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]

    async def aclose(self) -> None:
        self._feeds.clear()
        tasks = {*self._wakes, *([self._task] if self._task is not None else [])}
        while tasks:
            for task in tasks:
                task.cancel()
            # The Redis client loses a cancellation that arrives while it checks a connection.
            _, tasks = await asyncio.wait(tasks, timeout=CANCEL_AGAIN_S)

    async def _wake(self, key: str) -> None:
        """Make the blocking read return, because a feed has come that it does not cover."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.xadd(key, {FIELD: b""}, maxlen=1, approximate=False)
                pipeline.expire(key, WAKE_TTL_S)
                await pipeline.execute()
        except FAULTS as error:
            log.debug("the reader of streams notices a new turn only after %g s: %s", BLOCK_S, error)

    async def _run(self) -> None:
        timed_out = False
        while self._feeds:
            feeds = list(self._feeds.values())
            try:
                found = await self._read(feeds)
            except ClusterCrossSlotError:
                self._all.separate(list(self._feeds.values()))
                self._feeds.clear()
                continue
            except FAULTS as error:
                # A busy event loop may read too late what came in time. Only the second time in a row Redis hangs.
                if isinstance(error, RedisTimeoutError) and not timed_out:
                    timed_out = True
                    continue
                self._feeds.clear()
                self._all.fault(error)
                continue
            timed_out = False
            read = {feed.key: feed for feed in feeds}
            for key, entries in found:
                self._deliver(
                    key.decode(), read.get(key.decode()), [(entry_id, fields[FIELD]) for entry_id, fields in entries]
                )
            pause = PAUSE_PER_TURN_S * len(feeds)
            if found and pause >= SHORTEST_PAUSE_S:
                await asyncio.sleep(pause)

    async def _read(self, feeds: list[TurnFeed]) -> Any:
        positions: dict[Any, Any] = {feed.key: feed.newest for feed in feeds}
        if self._wake_key is not None:
            positions[self._wake_key] = self._woken
        self._blocked = True
        try:
            return await self._redis.xread(positions, count=BATCH, block=int(BLOCK_S * 1000)) or []
        finally:
            self._blocked = False

    def _deliver(self, key: str, feed: TurnFeed | None, entries: Entries) -> None:
        """Give a feed what was read for it. If its followers have gone meanwhile, the turn's new feed begins at another
        position, so these entries would leave a hole in it.
        """
        if feed is None:
            self._woken = entries[-1][0].decode()
            return
        if self._feeds.get(key) is not feed:
            return
        feed.add(entries)
        if feed.ended:
            self.remove(feed)


def _order(entry_id: bytes) -> tuple[int, int]:
    time, _, number = entry_id.partition(b"-")
    return int(time), int(number)
