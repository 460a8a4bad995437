"""Transactions on SQLite: SQLAlchemy's synchronous engine, called in the event loop.

Our statements take some microseconds, and handing one to a thread and back takes longer than that; on a busy event
loop it takes milliseconds, because the thread has to get Python's lock back after each step (figures:
docs/performance.md). What can take long does not happen in the event loop: the wait for another process' lock is a
sleep, long results are read in parts, and the disk is synced by checkpoints, which run in a thread.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from typing import Any, TypeVar

from sqlalchemy import URL, CursorResult, Executable, create_engine, event
from sqlalchemy import Connection as SyncConnection
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from longhaul.db.connection import Connection, Parameters

log = logging.getLogger(__name__)
T = TypeVar("T")
LOCK_TIMEOUT_S = 15.0
# How often another process' lock is tried: it is held for some milliseconds.
LOCK_RETRY_S, LOCK_RETRY_MAX_S = 0.001, 0.02
CHECKPOINT_EVERY_S = 2.0
CHECKPOINT_PATIENCE_S = 0.1  # for readers of the old log; writers wait as long
LOG_PAGES = 1_000  # as SQLite's own checkpoints
PRAGMAS = (
    "synchronous=NORMAL",  # a commit survives the end of any process; the disk is synced by checkpoints
    "wal_autocheckpoint=0",
    "foreign_keys=ON",
    "mmap_size=134217728",
    "busy_timeout=0",
)


class SqliteConnection(Connection):
    """Runs statements where it is called."""

    def __init__(self, connection: SyncConnection) -> None:
        super().__init__()
        self._connection = connection

    async def _run(self, statement: Executable, parameters: Parameters) -> CursorResult[Any]:
        return self._connection.execute(statement, parameters)

    async def lock_name(self, name: str) -> None:
        """Nothing to do: a transaction that writes is the only one."""


class Sqlite:
    """Transactions on a database file."""

    def __init__(self, url: URL, pool_size: int) -> None:
        self._path = url.database or ""
        self._engine = create_engine(
            url.set(drivername="sqlite"),
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            hide_parameters=True,  # what people say belongs neither in logs nor in Temporal's failures
            connect_args={"timeout": 0, "isolation_level": None},  # transactions are begun below
        )
        event.listen(self._engine, "connect", _configure)
        self._free_connections = asyncio.Semaphore(pool_size)  # the pool itself would wait in the event loop
        # SQLite lets one writer in at a time and makes the others poll; in one process a queue is faster.
        self._writer = asyncio.Lock()
        self._checkpoints = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-checkpoint")
        self._checkpoint: Future[None] | None = None
        self._next_checkpoint: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        async with self._transaction("BEGIN") as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        # A transaction that reads first and writes later would fail when another one wrote in between.
        async with self._writer, self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection
        if self._next_checkpoint is None:
            self._plan_checkpoint()

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[Connection]:
        async with asyncio.timeout(LOCK_TIMEOUT_S):
            await self._free_connections.acquire()
        try:
            connection = await _when_unlocked(self._engine.connect)
            with closing(connection):  # rolls back what was not committed
                await _when_unlocked(lambda: connection.exec_driver_sql(begin))
                yield SqliteConnection(connection)
                connection.commit()
        finally:
            self._free_connections.release()

    def _plan_checkpoint(self) -> None:
        self._next_checkpoint = asyncio.get_running_loop().call_later(CHECKPOINT_EVERY_S, self._start_checkpoint)

    def _start_checkpoint(self) -> None:
        self._next_checkpoint = None
        if self._checkpoint is not None and not self._checkpoint.done():
            self._plan_checkpoint()
        else:
            self._checkpoint = self._checkpoints.submit(_checkpoint, self._path)

    async def close(self) -> None:
        if self._next_checkpoint is not None:
            self._next_checkpoint.cancel()
        await asyncio.to_thread(self._checkpoints.shutdown)
        self._engine.dispose()


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    # SQLite's own knows the letters of ASCII alone, and PostgreSQL's knows all.
    connection.create_function("lower", 1, lambda text: text and text.lower(), deterministic=True)


async def _when_unlocked(step: Callable[[], T]) -> T:
    """Do a step as soon as no other process holds the lock that it needs."""
    deadline, pause = time.monotonic() + LOCK_TIMEOUT_S, LOCK_RETRY_S
    while True:
        try:
            return step()
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LOCK_RETRY_MAX_S)


def _checkpoint(path: str) -> None:
    """Sync what was committed to disk, and move it from the log to the database file; readers and writers go on.

    A log that has grown is started again. Writers wait for that, but only what was committed meanwhile is left to move.
    The first write to a new log syncs it too: an empty write does so here.
    """
    try:
        with closing(sqlite3.connect(path, timeout=CHECKPOINT_PATIENCE_S, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=NORMAL")
            _, log_pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if log_pages > LOG_PAGES:
                connection.execute("PRAGMA wal_checkpoint(RESTART)")
                connection.execute("PRAGMA user_version=0")
    except sqlite3.Error as error:
        log.warning("the database's log was not moved into it; that is tried again after a later write: %s", error)
