"""Fixtures for all tests: the real servers, started when first asked for, and Longhaul itself on them."""

from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack
from typing import Unpack

import pytest

from testkit.pool import MakeProduct, Pool, ProductOptions
from testkit.postgres import PostgresServer
from testkit.process import kill_all
from testkit.product import BACKENDS, Backend, Product
from testkit.servers import RedisServer, TemporalServer

PRODUCTS = pytest.StashKey[list[Product]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on both databases, or on those that its `backends` mark or its file's `PRODUCT` names."""
    if "backend" not in metafunc.fixturenames:
        return
    options = getattr(metafunc.module, "PRODUCT", None)
    mark = metafunc.definition.get_closest_marker("backends")
    backends = mark.args if mark else BACKENDS if options is None else (options.get("backend", "sqlite"),)
    metafunc.parametrize("backend", backends)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses a real server, or Node with packages from npm, as an integration test."""
    for item in items:
        if {"server_pool", "node_modules"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the processes of a failing test's products logged during that test."""
    report = yield
    if report.failed:
        for product in item.stash.get(PRODUCTS, []):
            for process in product.processes:
                if logged := process.tail(60):
                    report.sections.append((f"{process.name}: {process.log}", logged))
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
    """The shared Temporal; `make_product(own_temporal=True)` starts one that a test may break."""
    return await server_pool.server(TemporalServer)


@pytest.fixture(scope="session")
async def redis_server(server_pool: Pool) -> RedisServer:
    """The shared Redis; `make_product(own_redis=True)` starts one that a test may break."""
    return await server_pool.server(RedisServer)


@pytest.fixture(scope="session")
async def postgres_server(server_pool: Pool) -> PostgresServer:
    """The shared PostgreSQL; each call of `new_database` makes a migrated database."""
    return await server_pool.server(PostgresServer)


@pytest.fixture(scope="module")
async def product_of_file(request: pytest.FixtureRequest, server_pool: Pool) -> AsyncIterator[Product | None]:
    """Ask for `product` instead."""
    options: ProductOptions | None = getattr(request.module, "PRODUCT", None)
    async with AsyncExitStack() as stack:
        yield await server_pool.make(stack, **options) if options is not None else None


@pytest.fixture
async def product(
    request: pytest.FixtureRequest, server_pool: Pool, product_of_file: Product | None, backend: Backend
) -> Product:
    """A running Longhaul. Tests share it: use new sessions, and break nothing.

    A test file that sets `PRODUCT` (options of `Pool.make`) gets a product of its own instead. Its tests may break it
    and its own servers: before each test what died or hangs is started again.
    """
    found = product_of_file or await server_pool.product(backend)
    request.node.stash.setdefault(PRODUCTS, []).append(found)
    await found.mend()
    return found


@pytest.fixture
async def make_product(request: pytest.FixtureRequest, server_pool: Pool) -> AsyncIterator[MakeProduct]:
    """Makes products for this test alone, which it may configure and break."""
    mine: list[Product] = request.node.stash.setdefault(PRODUCTS, [])
    async with AsyncExitStack() as stack:

        async def make(**options: Unpack[ProductOptions]) -> Product:
            found = await server_pool.make(stack, **options)
            mine.append(found)
            return found

        yield make
