"""Connections and transactions; the one place that knows SQLite from PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction, create_async_engine

from longhaul.db import inline_sqlite  # noqa: F401  # registers its driver
from longhaul.errors import UnavailableError

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 30
LOCK_TIMEOUT_S = 15.0
# How often another process' lock is looked at: it is held for some milliseconds.
LOCK_LOOK_S, LOCK_LOOK_MAX_S = 0.001, 0.02
OPEN_TIMEOUT_S = 5.0  # the first connections to a new file switch its journal, one after another
# PostgreSQL's codes for "not now": no connection, deadlock, out of something, starting or shutting down, a standby.
NOT_NOW = ("08", "40001", "40P01", "53", "57P", "25006")

Connection = AsyncConnection  # what a transaction hands out


class Database:
    """Hands out transactions.

    Every fault of the database itself (not of a statement) surfaces as `UnavailableError`, so callers decide by one
    name: activities let Temporal retry, the API answers 503.
    """

    def __init__(self, url: str, pool_size: int = 20) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = self._sqlite(pool_size) if self.is_sqlite else self._postgres(pool_size)
        # SQLite lets one writer in at a time and makes the others poll for it; in one process a queue is faster.
        self._writer: asyncio.Lock | None = asyncio.Lock() if self.is_sqlite else None

    def _sqlite(self, pool_size: int) -> AsyncEngine:
        engine = create_async_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=0,
            hide_parameters=True,  # what people say is neither for logs nor for Temporal's failures
            connect_args={"timeout": OPEN_TIMEOUT_S},
        )

        @event.listens_for(engine.sync_engine, "connect")
        def _configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # we begin transactions ourselves, below
            cursor = connection.cursor()
            for pragma in (
                "journal_mode=WAL",
                "synchronous=NORMAL",
                "foreign_keys=ON",
                "mmap_size=134217728",
                "busy_timeout=0",
            ):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        @event.listens_for(engine.sync_engine, "begin")
        def _begin(connection: Any) -> None:
            # A transaction that reads first and writes later fails on SQLite when another one wrote in between.
            write = connection.get_execution_options().get("longhaul_write", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

        return engine

    def _postgres(self, pool_size: int) -> AsyncEngine:
        return create_async_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            hide_parameters=True,
            pool_timeout=CONNECT_TIMEOUT_S,
            connect_args={"timeout": CONNECT_TIMEOUT_S, "command_timeout": STATEMENT_TIMEOUT_S},
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A transaction that only reads."""
        async with self._transaction(write=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        """A transaction that writes; it commits when the block ends without an exception."""
        async with self._writer or nullcontext(), self._transaction(write=True) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, *, write: bool) -> AsyncIterator[Connection]:
        try:
            async with self.engine.connect() as connection:
                await connection.execution_options(longhaul_write=write)
                transaction = await self._begun(connection)
                yield connection
                await transaction.commit()  # without it, closing the connection rolls back
        except (OperationalError, InterfaceError, PoolTimeoutError, OSError, TimeoutError) as error:
            raise UnavailableError("The database") from error
        except DBAPIError as error:
            state = str(getattr(error.orig, "sqlstate", None) or "")
            if error.connection_invalidated or state.startswith(NOT_NOW) or "ConnectionDoesNotExist" in str(error):
                raise UnavailableError("The database") from error
            raise

    async def _begun(self, connection: AsyncConnection) -> AsyncTransaction:
        """Begin; on SQLite as soon as no other process writes."""
        if not self.is_sqlite:
            return await connection.begin()
        patience, pause = time.monotonic() + LOCK_TIMEOUT_S, LOCK_LOOK_S
        while True:
            try:
                return await connection.begin()
            except OperationalError as error:
                if "locked" not in str(error.orig) or time.monotonic() > patience:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LOCK_LOOK_MAX_S)

    async def close(self) -> None:
        await self.engine.dispose()
