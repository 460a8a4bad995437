"""Alembic's entry: runs the migrations over the drivers that we use everywhere else."""

import asyncio

from alembic import context
from sqlalchemy import Connection, create_engine, make_url, pool

from longhaul.db import postgresql
from longhaul.db.models import Base

URL = make_url(context.config.attributes["url"])


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        # Several processes may start at once: one migrates, the others wait and find it done.
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7145031)")
        else:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")  # it is kept in the file
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        context.run_migrations()
    connection.commit()


async def _run_on_postgresql() -> None:
    engine = postgresql.create_engine(URL, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


if URL.get_backend_name() == "sqlite":
    options = {"timeout": 60, "isolation_level": None}
    with create_engine(URL, poolclass=pool.NullPool, connect_args=options).connect() as connection:
        _run(connection)
else:
    asyncio.run(_run_on_postgresql())
