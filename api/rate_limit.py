"""Who may hand in a message now."""

import asyncio
import logging
import time

from redis.exceptions import RedisError

from api import metrics
from api.problems import ProblemError
from api.services import Services

log = logging.getLogger(__name__)
WINDOW_S = 60
PAUSE_S = 5.0


class Admission:
    """Limits on posting. Their counters live in Redis; while it is away people are let in."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._redis_back_at = 0.0

    async def frequency(self, user_id: str) -> None:
        """Count one follow-up of a user.

        Raises:
            ProblemError: 429, too many of them in this minute over all sessions.
        """
        limit = self._services.settings.follow_up_rate_limit
        if not limit or time.monotonic() < self._redis_back_at:
            return
        key = f"longhaul:follow-ups:{user_id}"
        try:
            async with asyncio.timeout(self._services.settings.redis_timeout):
                # In a transaction, so that the window cannot end between SET and INCR: INCR would then make a key that
                # never expires. `EXPIRE ... NX` needs Redis 7, and the bundled Redis is 6.2.
                pipeline = self._services.redis.pipeline(transaction=True)
                pipeline.set(key, 0, ex=WINDOW_S, nx=True)
                pipeline.incr(key)
                pipeline.ttl(key)
                _, count, left = await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            # Not asked again for a moment: a Redis that hangs would cost every post its time-out.
            self._redis_back_at = time.monotonic() + PAUSE_S
            log.warning("follow-ups are not being counted: %s", error)
            return
        if count > limit:
            metrics.REFUSED.labels("frequency").inc()
            raise ProblemError(
                429,
                "too-many-messages",
                f"{limit} messages a minute may be sent to running turns.",
                headers={"Retry-After": str(max(1, left))},
            )

    async def cost(self, user_id: str) -> None:
        """Refuse a new turn of a user who has used up the day's or week's money (contracts, section 7).

        The hook of the usage limits: it is called at the right place, for new turns only, and refuses nobody yet.
        """
