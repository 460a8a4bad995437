"""Activities on SQLite, without Redis or a model: what they store and answer."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.deps import Deps
from longhaul.contracts import TurnRef
from longhaul.db import sessions
from longhaul.db.database import Database
from longhaul.db.migrate import upgrade
from longhaul.settings import load_settings
from longhaul.tools import default_tools

#: Not published: no activity then talks to Redis.
TURN = TurnRef(session_id="s", turn_id="t", user_id="u", published=False)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("activities") / "longhaul.db"
    upgrade(f"sqlite+inline:///{found}")
    return found


@pytest.fixture
async def deps(template: Path, tmp_path: Path) -> AsyncIterator[Deps]:
    """With one session."""
    await asyncio.to_thread(shutil.copy, template, tmp_path / "longhaul.db")
    database = Database(f"sqlite+inline:///{tmp_path / 'longhaul.db'}")
    async with database.write() as connection:
        await sessions.create(connection, sessions.NewSession(TURN.session_id, TURN.user_id))
    nothing = cast("Any", None)
    settings = load_settings(home=tmp_path)
    yield Deps(settings, database, redis=nothing, model=nothing, tools=default_tools(), temporal=nothing)
    await database.close()


@pytest.fixture
def environment() -> ActivityEnvironment:
    return ActivityEnvironment()
