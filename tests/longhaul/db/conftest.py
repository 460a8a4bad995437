"""An empty, migrated database of each kind; only those on PostgreSQL need a server."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from longhaul.db import sessions
from longhaul.db.database import Database
from longhaul.db.migrate import upgrade
from testkit.postgres import PostgresServer

SESSION, USER = "session", "user"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def server(request: pytest.FixtureRequest) -> PostgresServer | None:
    """None: SQLite."""
    if request.param == "sqlite":
        return None
    return cast("PostgresServer", request.getfixturevalue("postgres_server"))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrated once, copied for each test."""
    found = tmp_path_factory.mktemp("template") / "longhaul.db"
    upgrade(f"sqlite:///{found}")
    return found


@pytest.fixture
async def url(server: PostgresServer | None, sqlite_template: Path, tmp_path: Path) -> str:
    """Of a new, migrated database."""
    if server is not None:
        return await server.new_database()
    await asyncio.to_thread(shutil.copy, sqlite_template, tmp_path / "longhaul.db")
    return f"sqlite:///{tmp_path / 'longhaul.db'}"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """With one session of one user."""
    found = Database(url, pool_size=25)
    async with found.write() as connection:
        await sessions.create(connection, sessions.NewSession(SESSION, USER))
    yield found
    await found.close()
