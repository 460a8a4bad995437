"""An empty database, a Redis of its own, and a clock; so these tests need nothing else and are no integration tests."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from longhaul.db.database import Database
from longhaul.db.migrate import upgrade
from longhaul.limits.counters import SpendingCounters
from longhaul.redis import connect
from longhaul.settings import load_settings
from testkit.servers import RedisServer
from testkit.spending import Watch

#: A Saturday, so both windows are well under way.
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TIMEOUT_S = 30.0


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("limits") / "longhaul.db"
    upgrade(f"sqlite:///{found}")
    return found


@pytest.fixture
async def database(template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    await asyncio.to_thread(shutil.copy, template, tmp_path / "longhaul.db")
    database = Database(f"sqlite:///{tmp_path / 'longhaul.db'}")
    yield database
    await database.close()


@pytest.fixture(scope="session")
async def own_redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("limits-redis"))
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def redis(own_redis: RedisServer) -> AsyncIterator["Redis"]:
    client = connect(load_settings(redis_url=own_redis.url(), redis_timeout=TIMEOUT_S))
    yield client
    await client.aclose()


@pytest.fixture
def away() -> "Redis":
    """A Redis that does not answer."""
    return connect(load_settings(redis_url="redis://127.0.0.1:1"))


@pytest.fixture
def watch() -> Watch:
    return Watch(NOON)


@pytest.fixture
def user() -> str:
    """New for each test: the tests share a Redis."""
    return f"user-{uuid4()}"


@pytest.fixture
def counters(redis: "Redis", database: Database, watch: Watch) -> SpendingCounters:
    """Counters that are told what the database books."""
    found = SpendingCounters(redis, database, TIMEOUT_S, watch)
    database.count_bookings = found.count
    return found
