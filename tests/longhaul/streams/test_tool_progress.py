"""The progress of running tool calls, kept in a real Redis for those who poll."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from longhaul.contracts import Progress, ToolProgress, ToolRecord, TurnStatus
from longhaul.redis import connect
from longhaul.settings import load_settings
from longhaul.streams.tool_progress import keep, progress_key, with_tool_progress
from testkit.servers import RedisServer

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator["Redis"]:
    client = connect(load_settings(redis_url=redis_server.url(0)))
    yield client
    await client.aclose()


def running(*calls: str) -> Progress:
    tools = [ToolRecord(tool_call_id=call, name="dig", round=1, started_at=NOW) for call in calls]
    return Progress(
        turn_id=str(uuid4()), session_id="s", status=TurnStatus.RUNNING, started_at=NOW, tools_running=tools
    )


async def test_the_newest_report_of_each_running_call(redis: "Redis") -> None:
    turn = running("a", "b")
    for call, text in (("a", "old"), ("a", "new"), ("ended", "gone")):
        await keep(redis, turn.turn_id, call, ToolProgress(text=text, done=0.5, total=1))
    seen = await with_tool_progress(redis, turn)
    assert [one.progress for one in seen.tools_running] == [ToolProgress(text="new", done=0.5, total=1), None]
    assert await redis.ttl(progress_key(turn.turn_id)) > 0


async def test_a_broken_report_is_left_out(redis: "Redis") -> None:
    turn = running("a")
    await redis.hset(progress_key(turn.turn_id), "a", "{")
    assert (await with_tool_progress(redis, turn)).tools_running[0].progress is None


async def test_without_redis_there_is_none() -> None:
    away = connect(load_settings(redis_url="redis://127.0.0.1:1"))
    turn = running("a")
    await keep(away, turn.turn_id, "a", ToolProgress(text="unseen"))
    assert await with_tool_progress(away, turn) == turn
