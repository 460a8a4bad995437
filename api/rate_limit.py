"""What may be done in a minute: follow-ups and new turns of one user, requests of tool workers for one call."""

import asyncio
import logging
import time

from redis.asyncio import Redis

from api import metrics
from api.problems import ProblemError
from longhaul.redis import FAULTS

log = logging.getLogger(__name__)
WINDOW_S = 60
PAUSE_S = 5.0


class RateLimit:
    """At most so many of each a minute: of a user over all sessions, and of a tool call; 0: no limit.

    The counters live in Redis. While Redis is away nothing is counted and nothing refused.
    """

    def __init__(
        self, redis: "Redis", *, follow_ups: int, new_turns: int, of_tool_workers: int, redis_timeout: float
    ) -> None:
        self._redis = redis
        self._follow_ups = follow_ups
        self._new_turns = new_turns
        self._of_tool_workers = of_tool_workers
        self._redis_timeout = redis_timeout
        self._paused_until = 0.0

    async def count_follow_up(self, user_id: str) -> None:
        """Count one follow-up of a user.

        Raises:
            ProblemError: 429, this user has sent too many in this minute.
        """
        if wait_s := await self._count("follow-ups", user_id, self._follow_ups):
            raise _refused(f"{self._follow_ups} messages a minute may be sent to running turns.", wait_s)

    async def count_new_turn(self, user_id: str) -> None:
        """Count one message of a user that begins a turn.

        Raises:
            ProblemError: 429, this user has begun too many in this minute.
        """
        if wait_s := await self._count("new-turns", user_id, self._new_turns):
            raise _refused(f"{self._new_turns} turns a minute may be begun.", wait_s)

    async def count_tool_worker(self, remote_call_id: str) -> None:
        """Count one request of a tool worker for a call.

        Raises:
            ProblemError: 429, there were too many in this minute.
        """
        if wait_s := await self._count("tool-worker", remote_call_id, self._of_tool_workers):
            raise _refused(f"{self._of_tool_workers} requests a minute may be made for a tool call.", wait_s)

    async def _count(self, name: str, whose: str, limit: int) -> int:
        """Count once; 0, or if it was too many, the seconds until the window ends."""
        if not limit or time.monotonic() < self._paused_until:
            return 0
        key = f"longhaul:{name}:{whose}"
        try:
            async with asyncio.timeout(self._redis_timeout):
                # In a transaction, so that the window cannot end between SET and INCR: INCR would then make a key that
                # never expires. `EXPIRE ... NX` needs Redis 7, and the bundled Redis is 6.2.
                pipeline = self._redis.pipeline(transaction=True)
                pipeline.set(key, 0, ex=WINDOW_S, nx=True)
                pipeline.incr(key)
                pipeline.ttl(key)
                _, count, left = await pipeline.execute()
        except FAULTS as error:
            # Redis gets a pause: while it hangs, every post would wait for the timeout.
            self._paused_until = time.monotonic() + PAUSE_S
            log.warning("%s are not being counted: %s", name, error)
            return 0
        return max(1, left) if count > limit else 0


def _refused(detail: str, wait_s: int) -> ProblemError:
    metrics.REFUSED.labels("frequency").inc()
    return ProblemError(429, "too-many-messages", detail, headers={"Retry-After": str(wait_s)})
