"""The reading end of a turn's stream.

The publisher never writes after a fault and never into a stream that has a hole (`publisher.py`), so what is read here
is whole up to some point. When it cannot be read to its end, `StreamLostError` says so and readers go over to rows.
"""

import re
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from longhaul.errors import LonghaulError
from longhaul.settings import Settings
from longhaul.streams.events import FIELD, START_ID, WITHDRAWN, stream_key
from longhaul.streams.viewer import ViewerState

ENTRY_ID = re.compile(r"\d{1,20}-\d{1,20}")
BEGINNING = "0-0"
# One read takes about this much, however large entries are: it is what a client that does not read costs.
READ_BYTES = 131_072
BATCH = 200
FIRST_BATCH = 16
# One blocking read: how fast a hung Redis, a stream that has gone and the end of this process are noticed.
BLOCK_S = 1.0
MAX_STREAMS = 100_000

Entries = list[tuple[bytes, bytes]]


class StreamLostError(LonghaulError):
    """This turn's stream cannot be served (any further) from Redis."""


def connect_for_reading(settings: Settings) -> "Redis":
    """A client whose connections block: one for each open stream, so none waits behind another."""
    return Redis(
        connection_pool=ConnectionPool.from_url(
            settings.redis_url or "redis://127.0.0.1:6379/0",
            max_connections=MAX_STREAMS,
            socket_timeout=BLOCK_S + settings.redis_timeout,
            socket_connect_timeout=settings.redis_timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    )


class StreamReader:
    """Reads one turn's stream for one client. `state` follows the parts that are read."""

    def __init__(self, redis: "Redis", turn_id: str, state: ViewerState) -> None:
        self._redis = redis
        self._key = stream_key(turn_id)
        self._state = state
        self._last = BEGINNING
        self._count = FIRST_BATCH

    async def has(self, entry_id: str) -> bool:
        """Whether the stream has this entry.

        Raises:
            StreamLostError: Redis does not answer.
        """
        try:
            entries: Any = await self._redis.xrange(self._key, min=entry_id, max=entry_id, count=1)
        except (RedisError, OSError, TimeoutError) as error:
            raise StreamLostError(str(error)) from error
        return bool(entries) and entries[0][1][FIELD] != WITHDRAWN

    async def may_have_had(self, entry_id: str) -> bool:
        """Whether a client may have this entry from this stream: it has it, or it was withdrawn.

        Raises:
            StreamLostError: Redis does not answer.
        """
        return await self.has(entry_id) or await self._is_withdrawn()

    async def _is_withdrawn(self) -> bool:
        try:
            entries: Any = await self._redis.xrevrange(self._key, count=1)
        except (RedisError, OSError, TimeoutError) as error:
            raise StreamLostError(str(error)) from error
        return bool(entries) and entries[0][1][FIELD] == WITHDRAWN

    async def exists(self) -> bool:
        """Whether there is a stream.

        Raises:
            StreamLostError: Redis does not answer.
        """
        try:
            return bool(await self._redis.exists(self._key))
        except (RedisError, OSError, TimeoutError) as error:
            raise StreamLostError(str(error)) from error

    async def skip_to(self, entry_id: str) -> bool:
        """Continue behind an entry that the client has, and note everything before it; False if it has no such entry.

        Raises:
            StreamLostError: the stream is gone or Redis does not answer.
        """
        if entry_id == BEGINNING or not await self.has(entry_id):
            return False
        while self._last != entry_id:
            try:
                entries: Any = await self._redis.xrange(
                    self._key, min=f"({self._last}", max=entry_id, count=self._count
                )
            except (RedisError, OSError, TimeoutError) as error:
                raise StreamLostError(str(error)) from error
            if not entries:
                raise StreamLostError("the stream went away")
            self._take([(key, fields[FIELD]) for key, fields in entries])
        return True

    async def read(self) -> Entries:
        """The next entries, as soon as there are any; none after `BLOCK_S` seconds of silence.

        Raises:
            StreamLostError: Redis does not answer, or the stream was withdrawn or lacks its `start`.
        """
        try:
            streams: Any = await self._redis.xread(
                {self._key: self._last}, count=self._count, block=int(BLOCK_S * 1000)
            )
        except (RedisError, OSError, TimeoutError) as error:
            raise StreamLostError(str(error)) from error
        if not streams:
            return []
        entries = [(key, fields[FIELD]) for key, fields in streams[0][1]]
        self._take(entries)
        return entries

    def _take(self, entries: Entries) -> None:
        if entries[0][1] == WITHDRAWN:
            raise StreamLostError("it was withdrawn")
        if self._last == BEGINNING and entries[0][0].decode() != START_ID:
            raise StreamLostError("the stream does not begin with the turn's beginning")
        for _, part in entries:
            self._state.note_json(part)
        self._last = entries[-1][0].decode()
        size = sum(len(part) for _, part in entries) // len(entries)
        self._count = min(BATCH, 2 * self._count, READ_BYTES // (size + 1) + 1)


async def newest_id(redis: "Redis", turn_id: str) -> str | None:
    """The id of a stream's newest entry; None if it has none, was withdrawn, or Redis is away."""
    try:
        entries: Any = await redis.xrevrange(stream_key(turn_id), count=1)
    except (RedisError, OSError, TimeoutError):
        return None  # the caller can do without: a resume without an id starts from the beginning
    if not entries or entries[0][1][FIELD] == WITHDRAWN:
        return None
    return str(entries[0][0], "ascii")
