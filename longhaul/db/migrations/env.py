"""Alembic's entry: runs the migrations over the drivers that we use everywhere else."""

import asyncio
import time

from alembic import context
from sqlalchemy import Connection, create_engine, make_url, pool
from sqlalchemy.exc import OperationalError

import longhaul.db.event_tables
import longhaul.db.schedule_tables  # noqa: F401  # tables of their own
from longhaul.db import postgresql
from longhaul.db.models import Base

URL = make_url(context.config.attributes["url"])
LOCK_TIMEOUT_S, LOCK_RETRY_S = 60.0, 0.05


def _run(connection: Connection) -> None:
    # Alembic takes SQLite's DDL for not transactional, and would commit, and so unlock, after each migration.
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=True, transactional_ddl=True
    )
    with context.begin_transaction():
        # Several processes may start at once: one migrates, the others wait and find it done.
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7145031)")
        else:
            _when_unlocked(connection, "PRAGMA journal_mode = WAL")  # it is kept in the file
            _when_unlocked(connection, "BEGIN IMMEDIATE")
        context.run_migrations()


def _when_unlocked(connection: Connection, statement: str) -> None:
    """Execute a statement as soon as no other process holds the lock that it needs.

    SQLite's own waiting is not enough: a file whose journal mode is being changed refuses others at once.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            connection.exec_driver_sql(statement)
            return
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
        time.sleep(LOCK_RETRY_S)


async def _run_on_postgresql() -> None:
    engine = postgresql.create_engine(URL, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


if URL.get_backend_name() == "sqlite":
    options = {"timeout": LOCK_TIMEOUT_S, "isolation_level": None}
    with create_engine(URL, poolclass=pool.NullPool, connect_args=options).connect() as connection:
        _run(connection)
else:
    asyncio.run(_run_on_postgresql())
