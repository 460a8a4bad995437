"""The migrations make the tables of the models, on both databases."""

import asyncio
import functools
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import insert

from longhaul.db import session_list, sessions
from longhaul.db.database import Database
from longhaul.db.migrate import config, upgrade
from longhaul.db.models import Base, SessionRow
from longhaul.errors import UnavailableError
from testkit.servers import ROOT
from tests.longhaul.db.conftest import SESSION, USER


async def test_the_tables_are_those_of_the_models(url: str) -> None:
    """`alembic check` compares what the migrations made with the models, and raises on any difference."""
    await asyncio.to_thread(command.check, config(url))


@pytest.mark.integration
async def test_processes_that_migrate_at_once_do_it_once(url: str) -> None:
    await asyncio.to_thread(command.downgrade, config(url), "base")
    migrate = [sys.executable, "-c", f"from longhaul.db.migrate import upgrade; upgrade({url!r})"]
    run = functools.partial(subprocess.run, migrate, capture_output=True, timeout=60, cwd=ROOT)
    ended = await asyncio.gather(*(asyncio.to_thread(run) for _ in range(2)))
    assert [process.returncode for process in ended] == [0, 0], ended
    await asyncio.to_thread(command.check, config(url))


async def test_a_new_file_that_another_process_writes_is_waited_for(tmp_path: Path) -> None:
    """SQLite refuses at once to change the journal mode of such a file, whatever its time-out."""
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    migrating = asyncio.ensure_future(asyncio.to_thread(upgrade, f"sqlite:///{path}"))
    refused, _ = await asyncio.wait({migrating}, timeout=2)
    other.close()
    await migrating
    assert not refused


async def test_migrating_again_does_nothing(url: str, database: Database) -> None:
    await asyncio.to_thread(upgrade, url)
    async with database.read() as connection:
        assert (await sessions.get(connection, SESSION)).user_id == USER


async def test_down_and_up_again(url: str) -> None:
    await asyncio.to_thread(command.downgrade, config(url), "base")
    await asyncio.to_thread(upgrade, url)
    await asyncio.to_thread(command.check, config(url))


async def test_databases_of_the_first_version_keep_their_rows(url: str) -> None:
    await asyncio.to_thread(command.downgrade, config(url), "0001")
    database = Database(url)
    async with database.write() as connection:
        await connection.execute(insert(SessionRow).values(id="old", user_id=USER))
    await asyncio.to_thread(upgrade, url)
    async with database.read() as connection:
        assert [one.session.id for one in await session_list.list_of_user(connection, USER, 10)] == ["old"]
    await database.close()


def test_there_is_one_newest_migration() -> None:
    assert len(ScriptDirectory.from_config(config("sqlite://")).get_heads()) == 1


def test_the_folder_is_made(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "longhaul.db"
    upgrade(f"sqlite:///{file}")
    with sqlite3.connect(file) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names >= set(Base.metadata.tables)


@pytest.mark.parametrize("url", ["postgresql+asyncpg://u@127.0.0.1:1/x", "sqlite:////nowhere/at/all/longhaul.db"])
async def test_a_database_that_is_away_is_named_so(url: str) -> None:
    database = Database(url)
    for transaction in (database.read, database.write):
        with pytest.raises(UnavailableError, match="The database cannot be reached"):
            async with transaction():
                raise AssertionError("it was reached")
    await database.close()
