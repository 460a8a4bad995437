"""One session in a database of its own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from longhaul.db import sessions
from longhaul.db.database import Database
from longhaul.db.migrate import upgrade

SESSION, USER = "session", "user"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    await asyncio.to_thread(upgrade, url)
    database = Database(url)
    async with database.write() as connection:
        await sessions.create(connection, sessions.NewSession(SESSION, USER))
    yield database
    await database.close()
