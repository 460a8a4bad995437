"""Fixtures for all tests: the real servers, started when first asked for, and Longhaul itself on them."""

import functools
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from testkit.pool import MakeProduct, Pool
from testkit.postgres import PostgresServer
from testkit.process import kill_all
from testkit.product import BACKENDS, Backend, Product
from testkit.servers import ModelServer, RedisServer, TemporalServer

PRODUCTS = pytest.StashKey[list[Product]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses a real server is an integration test."""
    for item in items:
        if "server_pool" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.integration)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing test shows what the processes of its products logged meanwhile."""
    report = yield
    if report.failed:
        for product in item.stash.get(PRODUCTS, []):
            for process in product.processes:
                if said := process.tail(60):
                    report.sections.append((f"{process.name}: {process.log}", said))
    return report


@pytest.fixture(scope="session")
async def server_pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    """Everything that is shared; ask for one of the fixtures below instead."""
    pool = Pool(tmp_path_factory.mktemp("servers"))
    try:
        yield pool
        await pool.close()
    finally:
        kill_all()


@pytest.fixture(scope="session")
async def temporal_server(server_pool: Pool) -> TemporalServer:
    """The shared Temporal; one to break comes with `make_product(own_temporal=True)`."""
    return await server_pool.server(TemporalServer)


@pytest.fixture(scope="session")
async def redis_server(server_pool: Pool) -> RedisServer:
    """The shared Redis; one to break comes with `make_product(own_redis=True)`."""
    return await server_pool.server(RedisServer)


@pytest.fixture(scope="session")
async def postgres_server(server_pool: Pool) -> PostgresServer:
    """The shared PostgreSQL; `new_database` gives a migrated one to each who asks."""
    return await server_pool.server(PostgresServer)


@pytest.fixture(scope="session")
async def model_server(server_pool: Pool) -> ModelServer:
    """The shared offline model; ask it for faults by a text that only your test uses."""
    return await server_pool.server(ModelServer)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each database in turn; for `make_product(backend)`."""
    found: Backend = request.param
    return found


@pytest.fixture
async def product(request: pytest.FixtureRequest, server_pool: Pool, backend: Backend) -> Product:
    """A running Longhaul on SQLite, then on PostgreSQL. Tests share it: use new sessions, and kill nothing of it."""
    found = await server_pool.product(backend)
    request.node.stash.setdefault(PRODUCTS, []).append(found)
    return found


@pytest.fixture
async def make_product(request: pytest.FixtureRequest, server_pool: Pool) -> AsyncIterator[MakeProduct]:
    """Makes products for this test alone, to be configured and broken as it likes."""
    mine: list[Product] = request.node.stash.setdefault(PRODUCTS, [])
    async with AsyncExitStack() as stack:

        @functools.wraps(server_pool.make)
        async def make(*args: Any, **options: Any) -> Product:
            found = await server_pool.make(stack, *args, **options)
            mine.append(found)
            return found

        yield make
