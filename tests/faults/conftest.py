"""One product for each file of attacks, made as the file's `PRODUCT` says and whole again before every test."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from testkit.pool import Pool
from testkit.product import Product
from tests.conftest import PRODUCTS


@pytest.fixture(scope="module")
async def product_of_file(request: pytest.FixtureRequest, server_pool: Pool) -> AsyncIterator[Product]:
    """Ask for `product` instead."""
    async with AsyncExitStack() as stack:
        yield await server_pool.make(stack, **getattr(request.module, "PRODUCT", {}))


@pytest.fixture
async def product(request: pytest.FixtureRequest, product_of_file: Product) -> AsyncIterator[Product]:
    """The file's product: break what you like of it, it is mended before the next test."""
    found = product_of_file
    request.node.stash.setdefault(PRODUCTS, []).append(found)
    for server in found.own:
        server.resume()
        if not server.running:
            await server.start()
    await found.revive()
    for process in found.processes:
        process.mark()
    yield found
    for server in found.own:
        server.resume()
