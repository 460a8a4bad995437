"""SQLite for SQLAlchemy's asyncio engines, without a thread for each connection.

`aiosqlite` hands each step of a statement to another thread and back; for statements as short as ours that cost more
than they did (figures: docs/performance.md). So they run where they are, and the one thing that may take long, waiting
for another process' lock, is `Database`'s to do: connections here never wait. A slow disk holds the event loop up.
"""

import sqlite3
from collections import deque
from typing import Any

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import ConnectArgsType
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.util.concurrency import await_


class Cursor(sqlite3.Cursor):
    """Holds all rows as soon as there are any, so results can be read when their transaction has ended."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._rows: deque[Any] = deque()

    def execute(self, *args: Any) -> "Cursor":
        super().execute(*args)
        self._rows = deque(super().fetchall() if self.description else ())
        return self

    def fetchone(self) -> Any:
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return [self._rows.popleft() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, deque()
        return list(rows)

    async def _async_soft_close(self) -> None:
        """SQLAlchemy's word for letting go of the database, but not of the rows."""


class Connection(sqlite3.Connection):
    """The standard library's connection, with cursors as above."""

    def cursor(self, factory: type[sqlite3.Cursor] | None = None) -> Any:  # type: ignore[override]
        return super().cursor(factory or Cursor)


class InlineSQLite(SQLiteDialect_pysqlite):
    """The standard library's `sqlite3`, called in the event loop."""

    driver = "inline"
    is_async = True
    supports_statement_cache = True

    def create_connect_args(self, url: URL) -> ConnectArgsType:
        args, options = super().create_connect_args(url)
        return args, {**options, "factory": Connection}

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        await_(_nothing())
        super().do_execute(cursor, statement, parameters, context)  # type: ignore[no-untyped-call]

    def do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        await_(_nothing())
        super().do_executemany(cursor, statement, parameters, context)  # type: ignore[no-untyped-call]

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:  # noqa: ARG003  # for a file as for one in memory
        return AsyncAdaptedQueuePool


async def _nothing() -> None:
    """SQLAlchemy takes a driver that never awaits for one that blocks by mistake."""


registry.register("sqlite.inline", __name__, InlineSQLite.__name__)
