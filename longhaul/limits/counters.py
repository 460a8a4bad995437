"""Counters in Redis of what each user has spent today and this week. The ledger is the truth.

A counter that Redis does not have is summed up from the ledger, and is so anew every ten minutes: what was booked while
Redis could not be reached is then counted too. While a counter is summed up, its key holds a *claim* instead of a
number. Whatever is booked meanwhile removes the claim, so that no sum is stored which lacks it.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from redis.asyncio import Redis

from longhaul.db import spending
from longhaul.db.connection import Booking
from longhaul.db.database import Database
from longhaul.db.models import utc_now
from longhaul.db.spending import Spent
from longhaul.limits.windows import Window
from longhaul.redis import FAULTS

log = logging.getLogger(__name__)
Clock = Callable[[], datetime]
T = TypeVar("T")
LIFETIME_S = 600
CLAIM_S = 10
# Seconds without counters after a fault, so that a Redis which hangs does not delay every booking.
PAUSE_S = 5.0

_COUNT = """
for i, key in ipairs(KEYS) do
    local value = redis.call('GET', key)
    if value and tonumber(value) then
        redis.call('INCRBY', key, ARGV[1])
    elseif value then
        redis.call('DEL', key)
    end
end
return 1
"""
# Arguments: the claim, then the number and the lifetime in seconds of each counter.
_STORE = """
for i, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[1] then
        redis.call('SET', key, ARGV[2 * i], 'EX', ARGV[2 * i + 1])
    end
end
return 1
"""


class RedisAwayError(Exception):
    """Redis does not answer, or has not a moment ago."""


class SpendingCounters:
    """Counts what users spend."""

    def __init__(self, redis: "Redis", database: Database, redis_timeout: float, clock: Clock = utc_now) -> None:
        self._redis = redis
        self._database = database
        self._redis_timeout = redis_timeout
        self._clock = clock
        self._count = redis.register_script(_COUNT)
        self._store = redis.register_script(_STORE)
        self._paused_until = 0.0

    async def count(self, bookings: Sequence[Booking]) -> None:
        """Add what was booked to the counters that exist. Without Redis nothing is counted, which is no error."""
        try:
            for booking in bookings:
                if booking.microdollars:
                    keys = counter_keys(booking.user_id, booking.at)
                    await self._in_time(partial(self._count, keys=keys, args=[booking.microdollars]))
        except RedisAwayError as error:
            log.warning("what users spend is not being counted: %s", error)

    async def spent(self, user_id: str) -> Spent:
        """What a user has spent, by the counters; a missing one is summed up from the ledger.

        Raises:
            RedisAwayError: Redis cannot be reached.
            UnavailableError: the database cannot be reached, and is needed.
        """
        values = await self._in_time(partial(self._redis.mget, counter_keys(user_id, self._clock())))
        try:
            return Spent(*(max(0, int(value or "missing")) for value in values))
        except ValueError:  # a counter is missing or claimed
            return await self.recount(user_id)

    async def recount(self, user_id: str) -> Spent:
        """What a user has spent, by the ledger; the counters are set to it, if Redis can be reached.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        now, claim = self._clock(), f"claimed by {secrets.token_hex(8)}"
        keys = counter_keys(user_id, now)
        try:
            await self._in_time(partial(self._claim, keys, claim))
        except RedisAwayError:
            return await self.by_ledger(user_id)
        sums = await self.by_ledger(user_id)
        arguments: list[str | int] = [claim]
        for window, number in zip(Window, sums, strict=True):
            arguments += [number, lifetime_s(window, now)]
        try:
            await self._in_time(partial(self._store, keys=keys, args=arguments))
        except RedisAwayError as error:
            log.warning("the counters of a user's spending could not be set: %s", error)
        return sums

    async def forget(self, user_id: str) -> None:
        """Remove the counters; whoever needs them next sums them up.

        Raises:
            RedisAwayError: Redis cannot be reached.
        """
        await self._in_time(partial(self._redis.delete, *counter_keys(user_id, self._clock())))

    async def by_ledger(self, user_id: str) -> Spent:
        """What a user has spent, by the ledger alone."""
        async with self._database.read() as connection:
            return await spending.spent(connection, user_id, self._clock())

    async def _claim(self, keys: list[str], claim: str) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        for key in keys:
            pipeline.set(key, claim, ex=CLAIM_S)
        await pipeline.execute()

    async def _in_time(self, command: Callable[[], Awaitable[T]]) -> T:
        """The answer of Redis.

        Raises:
            RedisAwayError: there is none within the time-out, or there was none a moment ago.
        """
        if time.monotonic() < self._paused_until:
            raise RedisAwayError("it did not answer a moment ago")
        try:
            async with asyncio.timeout(self._redis_timeout):
                return await command()
        except FAULTS as error:
            self._paused_until = time.monotonic() + PAUSE_S
            raise RedisAwayError(str(error) or type(error).__name__) from error


def counter_keys(user_id: str, at: datetime) -> list[str]:
    """The keys of a user's counters for the day and the week that hold the moment `at`, in one slot of a cluster."""
    return [f"copilot:cost:{{{user_id}}}:{window}:{window.start(at):%Y-%m-%d}" for window in Window]


def lifetime_s(window: Window, now: datetime) -> int:
    """How long a counter that is set now is kept: to the end of its window at most."""
    return max(1, min(LIFETIME_S, int((window.end(now) - now).total_seconds())))
