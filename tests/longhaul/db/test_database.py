"""Transactions: whole or not at all, and nothing slow in them holds the event loop up."""

import asyncio
import itertools
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from longhaul.db import conversation, messages, sessions, sqlite
from longhaul.db.connection import ROWS_AT_ONCE
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.errors import UnavailableError
from testkit.wait import until
from tests.longhaul.db.conftest import SESSION

ONE = text("SELECT 1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of the databases below that are on SQLite."""
    return tmp_path / "longhaul.db"


@pytest.fixture
async def narrow(sqlite_template: Path, file: Path) -> AsyncIterator[Database]:
    """On SQLite, with one connection."""
    await asyncio.to_thread(shutil.copy, sqlite_template, file)
    database = Database(f"sqlite:///{file}", pool_size=1)
    yield database
    await database.close()


@pytest.fixture
def other_process(file: Path, narrow: Database) -> Iterator[sqlite3.Connection]:
    """Holds the lock of writers; a wait for it in the event loop would keep this test from releasing it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


async def titles(database: Database, session_id: str = SESSION) -> list[str | None]:
    async with database.read() as connection:
        rows = await connection.execute(text("SELECT title FROM sessions WHERE id = :id"), {"id": session_id})
    return [row.title for row in rows]


async def create(database: Database, session_id: str = SESSION, title: str = "title") -> None:
    async with database.write() as connection:
        await sessions.create(connection, sessions.NewSession(session_id, "user", title=title))


@pytest.mark.parametrize("error", [ValueError("broken"), asyncio.CancelledError()])
async def test_what_fails_leaves_nothing_and_frees_its_connection(database: Database, error: BaseException) -> None:
    async def fail() -> None:
        async with database.write() as connection:
            await sessions.rename(connection, SESSION, "user", "changed")
            raise error

    for _ in range(60):  # more than there are connections
        with pytest.raises(type(error)):
            await fail()
    assert await titles(database) == [None]


async def test_a_long_result_lets_others_go_on(database: Database) -> None:
    count = 10 * ROWS_AT_ONCE + 1
    async with database.write() as connection:
        await messages.append(
            connection, SESSION, [NewMessage(f"{n}", "user", "text", turn_id="t") for n in range(count)]
        )
    turns_of_the_loop = 0

    async def others() -> None:
        nonlocal turns_of_the_loop
        while True:
            turns_of_the_loop += 1
            await asyncio.sleep(0)

    async with database.read() as connection:
        running = asyncio.create_task(others())
        rows = await conversation.rows_of_turn(connection, "t")
    running.cancel()
    assert [row.sequence for row in rows] == list(range(count))
    assert turns_of_the_loop >= 10


async def test_the_wait_for_another_process_is_asynchronous(
    narrow: Database, other_process: sqlite3.Connection
) -> None:
    writing = asyncio.create_task(create(narrow))
    done, _ = await asyncio.wait([writing], timeout=0.05)
    assert not done
    other_process.execute("COMMIT")
    await writing
    assert await titles(narrow) == ["title"]


async def test_a_lock_that_is_never_released_is_a_fault_of_the_database(
    narrow: Database, other_process: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT_S", 0.02)
    with pytest.raises(UnavailableError):
        await create(narrow)
    other_process.execute("COMMIT")
    await create(narrow)


async def test_when_all_connections_are_in_use_one_waits_and_then_fails(
    narrow: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT_S", 0.02)
    async with narrow.read() as connection:
        with pytest.raises(UnavailableError):
            await create(narrow)
        waiting = asyncio.create_task(create(narrow))
        monkeypatch.setattr(sqlite, "LOCK_TIMEOUT_S", 15)
        await asyncio.sleep(0)
        assert await connection.scalar(ONE) == 1
    await waiting
    assert await titles(narrow) == ["title"]


async def test_a_slow_disk_holds_no_transaction_up(narrow: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is synced by checkpoints only, and none of them runs in the event loop."""
    begun, disk_ready = threading.Event(), threading.Event()

    def slow_checkpoint(_path: str) -> None:
        begun.set()
        assert disk_ready.wait(30)

    monkeypatch.setattr(sqlite, "CHECKPOINT_EVERY_S", 0)
    monkeypatch.setattr(sqlite, "_checkpoint", slow_checkpoint)
    await create(narrow)
    await until(begun.is_set, what="the checkpoint has begun")
    for number in range(20):
        await create(narrow, f"another-{number}")
    assert await titles(narrow, "another-19") == ["title"]
    disk_ready.set()


async def test_checkpoints_move_rows_into_the_file_and_bound_the_log(
    narrow: Database, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_EVERY_S", 0)
    monkeypatch.setattr(sqlite, "LOG_PAGES", 50)
    log, headers, numbers = file.with_name(f"{file.name}-wal"), set[bytes](), itertools.count()

    async def started_again() -> bool:
        await create(narrow, f"s{next(numbers)}", "x" * 300)
        headers.add(log.read_bytes()[:32])
        return len(headers) > 3

    await until(started_again, what="the log is started again", every=0.001)
    last = f"s{next(numbers) - 1}"

    def moved() -> bool:
        copy = file.with_name("copy.db")
        shutil.copy(file, copy)
        with closing(sqlite3.connect(copy)) as connection:
            return bool(connection.execute("SELECT 1 FROM sessions WHERE id = ?", [last]).fetchone())

    await until(moved, what="rows are in the file itself")
