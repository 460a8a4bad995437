"""Notices of stopped sessions, on a real Redis: they arrive, also after Redis was away."""

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from longhaul import redis
from longhaul.settings import Settings
from longhaul.turns import stop_notices
from testkit.servers import RedisServer
from testkit.wait import until


@pytest.mark.integration
async def test_notices_come_again_when_redis_is_back(tmp_path: Path) -> None:
    server, seen = RedisServer(tmp_path), list[str]()
    await server.start()
    client = redis.connect(Settings(REDIS_URL=server.url()))
    listening = asyncio.create_task(stop_notices.listen(client, seen.append))
    try:
        await until_told(client, seen, "one")
        server.kill()
        await stop_notices.publish(client, "lost")
        await server.start()
        await until_told(client, seen, "two")
        assert "lost" not in seen
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await client.aclose()
        await server.stop()


async def until_told(client: "Redis", seen: list[str], session: str) -> None:
    """Publish notices of a session until one has arrived; a notice from before the subscription does not."""

    async def told() -> bool:
        await stop_notices.publish(client, session)
        return session in seen

    await until(told, what=f"a notice of session {session} arrives")
