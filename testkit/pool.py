"""The servers and products that all tests share, started when one is first asked for."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol, TypedDict, TypeVar, Unpack

from testkit.postgres import PostgresServer
from testkit.product import Backend, Product, Servers, running
from testkit.servers import ModelServer, RedisServer, Server, TemporalServer

S = TypeVar("S", bound=Server)


class ProductOptions(TypedDict, total=False):
    """How a product differs from one worker and one API on SQLite and the shared servers."""

    backend: Backend
    workers: int
    apis: int
    settings: Mapping[str, str]
    own_temporal: bool
    own_redis: bool
    own_model: bool
    own_postgres: bool


class MakeProduct(Protocol):
    """`await make_product(backend="postgresql", workers=2, settings={…}, own_redis=True)`."""

    async def __call__(self, **options: Unpack[ProductOptions]) -> Product: ...


class Pool:
    """One for a whole run of the tests (for each process of pytest-xdist)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._servers: dict[type[Server], Server] = {}
        self._products: dict[Backend, Product] = {}
        self._locks: defaultdict[type[Server], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()

    async def server(self, kind: type[S]) -> S:
        """The shared server of a kind."""
        async with self._locks[kind]:
            if kind not in self._servers:
                server = kind(self.folder / kind.name)
                self._stack.callback(server.remove)
                self._stack.push_async_callback(server.stop)
                await server.start()
                self._servers[kind] = server
        found = self._servers[kind]
        assert isinstance(found, kind)
        return found

    async def make(self, stack: AsyncExitStack, **options: Unpack[ProductOptions]) -> Product:
        """A new running product, stopped with `stack`. It shares the servers that are not to be its own."""
        number = next(self._numbers)
        folder = self.folder / f"product-{number}"
        backend = options.get("backend", "sqlite")
        own: list[Server] = []

        async def get(kind: type[S], *, alone: bool) -> S:
            if not alone:
                return await self.server(kind)
            server = kind(folder / kind.name)
            own.append(server)
            return server

        async def postgres() -> PostgresServer | None:
            return (
                await get(PostgresServer, alone=options.get("own_postgres", False)) if backend == "postgresql" else None
            )

        servers = Servers(
            *await asyncio.gather(
                get(TemporalServer, alone=options.get("own_temporal", False)),
                get(RedisServer, alone=options.get("own_redis", False)),
                get(ModelServer, alone=options.get("own_model", False)),
                postgres(),
            )
        )
        settings = options.get("settings", {})
        product = Product(folder, servers, backend, settings, number % RedisServer.databases, tuple(own))
        return await stack.enter_async_context(running(product, options.get("workers", 1), options.get("apis", 1)))

    async def product(self, backend: Backend) -> Product:
        """The shared product on a database."""
        if backend not in self._products:
            self._products[backend] = await self.make(self._stack, backend=backend)
        return self._products[backend]

    async def close(self) -> None:
        """Stop everything.

        Raises:
            AssertionError: a process of a shared product did not end cleanly.
        """
        await self._stack.aclose()
