"""The copy of a session in Redis: never asked while the database answers, and no loss when it is gone or broken."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from api.ownership import SessionRecord, SessionsOfOwners
from longhaul.db import sessions
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.models import utc_now
from longhaul.errors import NotFoundError, UnavailableError
from testkit.product import Product
from testkit.servers import RedisClusterServer, RedisServer

TTL_S = 43_200.0


class Switched(Database):
    """A database that can be away."""

    away = False

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        if self.away:
            raise UnavailableError("The database")
        async with super().read() as connection:
            yield connection


@pytest.fixture
async def database(product: Product) -> AsyncIterator[Switched]:
    found = Switched(product.database_url, pool_size=2)
    yield found
    await found.close()


@pytest.fixture
async def redis(product: Product) -> AsyncIterator["Redis"]:
    client = Redis.from_url(product.servers.redis.url(product.redis_database))
    yield client
    await client.aclose()


async def made(database: Database, user: str = "ada") -> str:
    session = str(uuid4())
    async with database.write() as connection:
        await sessions.create(connection, sessions.NewSession(session, user, title="first"))
    return session


def key(session: str) -> str:
    return f"longhaul:session:{session}"


async def test_a_copy_stands_in_for_the_database(database: Switched, redis: "Redis") -> None:
    owned, session = SessionsOfOwners(database, redis, TTL_S), await made(database)
    found = await owned.get(session, "ada")
    assert 0.9 * TTL_S < await redis.ttl(key(session)) <= TTL_S
    database.away = True
    assert await owned.get(session, "ada") == found
    with pytest.raises(NotFoundError):
        await owned.get(session, "eve")
    with pytest.raises(UnavailableError):
        await owned.get(str(uuid4()), "ada")


async def test_a_stale_copy_shows_nowhere(database: Switched, redis: "Redis") -> None:
    owned, session = SessionsOfOwners(database, redis, TTL_S), await made(database)
    await owned.get(session, "ada")
    async with database.write() as connection:
        await sessions.rename(connection, session, "ada", "second")
    assert (await owned.get(session, "ada")).title == "second"
    database.away = True
    assert (await owned.get(session, "ada")).title == "second"
    database.away = False
    async with database.write() as connection:
        await sessions.delete_all(connection, [session])
    with pytest.raises(NotFoundError):
        await owned.get(session, "ada")
    await owned.forget([session])
    assert not await redis.exists(key(session))


@pytest.mark.parametrize("broken", [b"", b"\xff{", b"[]", b'{"id": 7}', b"null"])
async def test_a_corrupt_copy_counts_as_none(database: Switched, redis: "Redis", broken: bytes) -> None:
    owned, session = SessionsOfOwners(database, redis, TTL_S), await made(database)
    await redis.set(key(session), broken)
    database.away = True
    with pytest.raises(UnavailableError):
        await owned.get(session, "ada")
    database.away = False
    assert (await owned.get(session, "ada")).id == session
    assert SessionRecord.model_validate_json(await redis.get(key(session)) or b"").id == session


async def test_the_copy_of_another_session_counts_as_none(database: Switched, redis: "Redis") -> None:
    owned, mine, hers = SessionsOfOwners(database, redis, TTL_S), await made(database), await made(database, "eve")
    await owned.get(mine, "ada")
    await redis.copy(key(mine), key(hers), replace=True)
    database.away = True
    with pytest.raises(UnavailableError):
        await owned.get(hers, "ada")


async def test_a_dead_redis_costs_nothing(database: Switched, redis_server: RedisServer) -> None:
    session = await made(database)
    dead = Redis.from_url("redis://127.0.0.1:1/0")
    owned = SessionsOfOwners(database, dead, TTL_S)
    assert (await owned.get(session, "ada")).id == session
    await owned.forget([session])
    database.away = True
    with pytest.raises(UnavailableError, match="database"):
        await owned.get(session, "ada")
    await dead.aclose()


async def test_no_copies(database: Switched, redis: "Redis") -> None:
    owned, session = SessionsOfOwners(database, redis, 0), await made(database)
    await owned.get(session, "ada")
    assert not await redis.exists(key(session))


async def test_copies_of_several_sessions_are_forgotten_in_a_cluster(tmp_path: Path) -> None:
    """They lie in different slots, and a node refuses one command for all of them."""
    server = RedisClusterServer(tmp_path)
    await server.start()
    redis = Redis.from_url(server.url(0))
    try:
        owned = SessionsOfOwners(cast("Database", None), redis, TTL_S)
        records = [
            SessionRecord.model_validate({**dict.fromkeys(SessionRecord.model_fields), **known})
            for known in (
                {"id": name, "user_id": "ada", "created_at": utc_now(), "updated_at": utc_now()} for name in "abc"
            )
        ]
        for record in records:
            await owned.keep(record)
        assert await redis.dbsize() == len(records)
        await owned.forget([record.id for record in records])
        assert await redis.dbsize() == 0
    finally:
        await redis.aclose()
        await server.stop()
