"""The servers and products that all tests share, started when one is first asked for."""

import asyncio
import itertools
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

from testkit.postgres import PostgresServer
from testkit.product import Backend, Product, Servers, running
from testkit.servers import ModelServer, RedisServer, Server, TemporalServer

S = TypeVar("S", bound=Server)


class MakeProduct(Protocol):
    """`await make_product("postgresql", workers=2, settings={…}, own_redis=True)`, see `Pool.make`."""

    async def __call__(self, *args: Any, **options: Any) -> Product: ...


class Pool:
    """One for a whole run of the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._servers: dict[type[Server], Server] = {}
        self._products: dict[Backend, Product] = {}
        self._lock = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()

    async def server(self, kind: type[S]) -> S:
        """The shared server of a kind."""
        async with self._lock:
            if kind not in self._servers:
                server = kind(self.folder / kind.name)
                self._stack.callback(server.remove)
                self._stack.push_async_callback(server.stop)
                await server.start()
                self._servers[kind] = server
        found = self._servers[kind]
        assert isinstance(found, kind)
        return found

    async def make(
        self,
        stack: AsyncExitStack,
        backend: Backend = "sqlite",
        *,
        workers: int = 1,
        apis: int = 1,
        settings: Mapping[str, str] | None = None,
        own_temporal: bool = False,
        own_redis: bool = False,
        own_model: bool = False,
        own_postgres: bool = False,
    ) -> Product:
        """A new running product; the shared servers serve it, except for those that it is to have for itself."""
        number = next(self._numbers)
        folder = self.folder / f"product-{number}"
        own: list[Server] = []

        async def get(kind: type[S], alone: bool) -> S:
            if not alone:
                return await self.server(kind)
            server = kind(folder / kind.name)
            own.append(server)
            return server

        servers = Servers(
            await get(TemporalServer, own_temporal),
            await get(RedisServer, own_redis),
            await get(ModelServer, own_model),
            await get(PostgresServer, own_postgres) if backend == "postgresql" else None,
        )
        product = Product(folder, servers, backend, settings or {}, number % RedisServer.databases, tuple(own))
        return await stack.enter_async_context(running(product, workers, apis))

    async def product(self, backend: Backend) -> Product:
        """The shared product on a database."""
        if backend not in self._products:
            self._products[backend] = await self.make(self._stack, backend)
        return self._products[backend]

    async def close(self) -> None:
        """Stop everything.

        Raises:
            AssertionError: a process of a shared product did not end cleanly.
        """
        await self._stack.aclose()
