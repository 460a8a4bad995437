"""The reading end of a turn's stream.

The publisher never writes after a fault and never into a stream that has a hole (`publisher.py`), so what is read here
is whole up to some point. When it cannot be read to its end, `StreamLostError` says so and readers go over to rows.
"""

import re
import time
from typing import Any

from redis.asyncio import Redis

from longhaul.redis import BLOCK_S, FAULTS
from longhaul.streams.events import FIELD, START_ID, WITHDRAWN, stream_key
from longhaul.streams.feed import Entries, StreamLostError, TurnFeed, TurnFeeds
from longhaul.streams.viewer import ViewerState

ENTRY_ID = re.compile(r"\d{1,20}-\d{1,20}")
BEGINNING = "0-0"
# One read takes about this much, however large entries are: it is what a client that does not read costs.
READ_BYTES = 131_072
RANGE = 200
FIRST_RANGE = 16


async def has_entry(redis: "Redis", turn_id: str, entry_id: str) -> bool:
    """Whether a turn's stream has this entry.

    Raises:
        StreamLostError: Redis does not answer.
    """
    try:
        entries: Any = await redis.xrange(stream_key(turn_id), min=entry_id, max=entry_id, count=1)
    except FAULTS as error:
        raise StreamLostError(str(error)) from error
    return bool(entries) and entries[0][1][FIELD] != WITHDRAWN


async def may_have_had_entry(redis: "Redis", turn_id: str, entry_id: str) -> bool:
    """Whether a client may have this entry from a turn's stream: it has it, or it was withdrawn.

    Raises:
        StreamLostError: Redis does not answer.
    """
    if await has_entry(redis, turn_id, entry_id):
        return True
    try:
        entries: Any = await redis.xrevrange(stream_key(turn_id), count=1)
    except FAULTS as error:
        raise StreamLostError(str(error)) from error
    return bool(entries) and entries[0][1][FIELD] == WITHDRAWN


async def newest_id(redis: "Redis", turn_id: str) -> str | None:
    """The id of a stream's newest entry; None if it has none, was withdrawn, or Redis is away."""
    try:
        entries: Any = await redis.xrevrange(stream_key(turn_id), count=1)
    except FAULTS:
        return None  # the caller can do without: a resume without an id starts from the beginning
    if not entries or entries[0][1][FIELD] == WITHDRAWN:
        return None
    return str(entries[0][0], "ascii")


class StreamReader:
    """Reads a turn's feed for one viewer, and from Redis what the feed does not have. `state` follows what is read."""

    def __init__(self, feeds: TurnFeeds, feed: TurnFeed, state: ViewerState) -> None:
        self._feeds = feeds
        self._feed = feed
        self._state = state
        self._last = BEGINNING.encode()
        self._number: int | None = None  # of the next entry in the feed; None: to be found
        self._count = FIRST_RANGE

    async def exists(self) -> bool:
        """Whether there is a stream; viewers of this process share the look.

        Raises:
            StreamLostError: Redis does not answer.
        """
        return await self._feed.look("exists", self._exists)

    async def _exists(self) -> bool:
        try:
            return bool(await self._feeds.redis.exists(self._feed.key))
        except FAULTS as error:
            raise StreamLostError(str(error)) from error

    async def skip_to(self, entry_id: str) -> bool:
        """Continue behind an entry that the client has, and note everything before it; False if it has no such entry.

        Raises:
            StreamLostError: the stream is gone or Redis does not answer.
        """
        if entry_id == BEGINNING:
            return False
        async with self._feeds.catching_up:
            if not await has_entry(self._feeds.redis, self._feed.turn_id, entry_id):
                return False
        target = entry_id.encode()
        while self._last != target:
            entries = await self._range(until=entry_id)
            if not entries:
                raise StreamLostError("the stream went away")
            self._take(entries)
        return True

    async def read(self) -> Entries:
        """The next entries, as soon as there are any; none after `BLOCK_S` seconds of silence.

        Raises:
            StreamLostError: Redis does not answer, or the stream was withdrawn or lacks its `start`.
        """
        self._feeds.begin(self._feed, self._last)
        silent_at = time.monotonic() + BLOCK_S
        while True:
            seen = self._feed.changed.count
            if entries := await self._next():
                self._take(entries)
                return entries
            if (left := silent_at - time.monotonic()) <= 0:
                return []
            await self._feed.changed.wait(seen, left)

    async def _next(self) -> Entries:
        """What is there now, from the feed or behind it."""
        self._feed.check()
        if self._number is None:
            self._number = self._feed.number_behind(self._last)
        if self._number is not None:
            entries = self._feed.entries_from(self._number, READ_BYTES)
            if entries is not None:
                self._number += len(entries)
                return entries
            self._number = None  # Too slow: the feed has gone on.
        return await self._range(until="+")

    async def _range(self, until: str) -> Entries:
        async with self._feeds.catching_up:
            self._feed.check()
            try:
                entries: Any = await self._feeds.redis.xrange(
                    self._feed.key, min=f"({self._last.decode()}", max=until, count=self._count
                )
            except FAULTS as error:
                raise StreamLostError(str(error)) from error
        found = [(entry_id, fields[FIELD]) for entry_id, fields in entries]
        if found:
            size = sum(len(part) for _, part in found) // len(found)
            self._count = min(RANGE, 2 * self._count, READ_BYTES // (size + 1) + 1)
        return found

    def _take(self, entries: Entries) -> None:
        # The feed may still have entries of before: Redis does not.
        if entries[-1][1] == WITHDRAWN:
            raise StreamLostError("it was withdrawn")
        if self._last == BEGINNING.encode() and entries[0][0].decode() != START_ID:
            raise StreamLostError("the stream does not begin with the turn's beginning")
        for _, part in entries:
            self._state.note_json(part)
        self._last = entries[-1][0]
