"""The limit on follow-ups per user and minute."""

import asyncio
import logging
import time

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api import metrics
from api.problems import ProblemError

log = logging.getLogger(__name__)
WINDOW_S = 60
PAUSE_S = 5.0


class RateLimit:
    """At most `limit` follow-ups a user and minute over all sessions; 0: no limit.

    The counters live in Redis. While Redis is away nothing is counted and nothing refused.
    """

    def __init__(self, redis: "Redis", limit: int, redis_timeout: float) -> None:
        self._redis = redis
        self._limit = limit
        self._redis_timeout = redis_timeout
        self._paused_until = 0.0

    async def count_follow_up(self, user_id: str) -> None:
        """Count one follow-up of a user.

        Raises:
            ProblemError: 429, this user has sent too many in this minute.
        """
        if not self._limit or time.monotonic() < self._paused_until:
            return
        key = f"longhaul:follow-ups:{user_id}"
        try:
            async with asyncio.timeout(self._redis_timeout):
                # In a transaction, so that the window cannot end between SET and INCR: INCR would then make a key that
                # never expires. `EXPIRE ... NX` needs Redis 7, and the bundled Redis is 6.2.
                pipeline = self._redis.pipeline(transaction=True)
                pipeline.set(key, 0, ex=WINDOW_S, nx=True)
                pipeline.incr(key)
                pipeline.ttl(key)
                _, count, left = await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            # Redis gets a pause: while it hangs, every post would wait for the timeout.
            self._paused_until = time.monotonic() + PAUSE_S
            log.warning("follow-ups are not being counted: %s", error)
            return
        if count > self._limit:
            metrics.REFUSED.labels("frequency").inc()
            raise ProblemError(
                429,
                "too-many-messages",
                f"{self._limit} messages a minute may be sent to running turns.",
                headers={"Retry-After": str(max(1, left))},
            )
