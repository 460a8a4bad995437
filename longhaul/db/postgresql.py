"""Transactions on PostgreSQL, by asyncpg."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL, CursorResult, Executable
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from longhaul.db.connection import Connection, Parameters

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 30


class PostgresConnection(Connection):
    """Runs statements by asyncpg."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def _run(self, statement: Executable, parameters: Parameters) -> CursorResult[Any]:
        return await self._connection.execute(statement, parameters)


class Postgres:
    """Transactions on a database of a server."""

    def __init__(self, url: URL, pool_size: int) -> None:
        self._engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            hide_parameters=True,  # what people say belongs neither in logs nor in Temporal's failures
            pool_timeout=CONNECT_TIMEOUT_S,
            connect_args={"timeout": CONNECT_TIMEOUT_S, "command_timeout": STATEMENT_TIMEOUT_S},
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        async with self._engine.connect() as connection:  # closing it ends the transaction
            yield PostgresConnection(connection)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        async with self._engine.begin() as connection:
            yield PostgresConnection(connection)

    async def close(self) -> None:
        await self._engine.dispose()
