"""Activities on SQLite, without Redis or a model: what they store and answer."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.attempt import TurnStreams
from longhaul import redis
from longhaul.contracts import TurnRef
from longhaul.db import sessions
from longhaul.db.database import Database
from longhaul.db.migrate import upgrade
from longhaul.settings import load_settings

#: Not published: no activity then talks to Redis.
TURN = TurnRef(session_id="s", turn_id="t", user_id="u", published=False)


SETTINGS = load_settings(home=Path(tempfile.gettempdir()) / "longhaul-activities", redis_url="redis://127.0.0.1:1")
#: A Redis that does not answer, and streams on it.
NO_REDIS = redis.connect(SETTINGS)
NO_STREAMS = TurnStreams(NO_REDIS, SETTINGS)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("activities") / "longhaul.db"
    upgrade(f"sqlite:///{found}")
    return found


@asynccontextmanager
async def database_with_a_session(template: Path, path: Path) -> AsyncIterator[Database]:
    """A new database at a path."""
    await asyncio.to_thread(shutil.copy, template, path)
    database = Database(f"sqlite:///{path}")
    async with database.write() as connection:
        await sessions.create(connection, sessions.NewSession(TURN.session_id, TURN.user_id))
    yield database
    await database.close()


@pytest.fixture
async def database(template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """A database with one session."""
    async with database_with_a_session(template, tmp_path / "longhaul.db") as database:
        yield database


@pytest.fixture
def environment() -> ActivityEnvironment:
    return ActivityEnvironment()
