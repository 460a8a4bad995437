"""Rows of credentials on both databases: their owner's only, and what happens at the same moment."""

import asyncio
from datetime import timedelta

import pytest

from longhaul.contracts import ParkKind
from longhaul.db import credentials, parked, turns
from longhaul.db.credentials import BegunConnection, NewCredential, Place, StoredCredential, lease
from longhaul.db.database import Database
from longhaul.db.models import CredentialKind, CredentialStatus, ParkedStatus, utc_now
from longhaul.db.parked import NewParked, ParkedRow
from longhaul.errors import NotFoundError, TooManyError
from tests.longhaul.db.conftest import SESSION, USER

OTHER = "other"


def new(name: str = "github", user: str = USER, version: str = "1") -> NewCredential:
    return NewCredential(user, name, CredentialKind.OAUTH, f"sealed {version}", version)


async def put(database: Database, given: NewCredential) -> StoredCredential:
    async with database.write() as connection:
        return await credentials.put(connection, given)


async def find(database: Database, name: str = "github", user: str = USER) -> StoredCredential | None:
    async with database.read() as connection:
        return await credentials.find(connection, user, name)


async def park(database: Database, call: str) -> ParkedRow:
    now = utc_now()
    asking = NewParked(
        parked.id_of("turn", 1, call, 1),
        session_id=SESSION,
        user_id=USER,
        turn_id="turn",
        round=1,
        tool_call_id=call,
        tool_name="issues",
        kind=ParkKind.CONNECT,
        arguments="{}",
        asked_at=now,
        expires_at=now + timedelta(days=1),
        credential="github",
        provider="GitHub",
    )
    async with database.write() as connection:
        return await parked.park(connection, asking)


@pytest.fixture
async def turn(database: Database) -> None:
    async with database.write() as connection:
        await turns.start(connection, turns.NewTurn("turn", SESSION, USER, "m", "fast", "standard", utc_now()))


async def test_each_user_has_their_own(database: Database) -> None:
    first = await put(database, new())
    await put(database, new("gitlab"))
    await put(database, new(user=OTHER, version="theirs"))
    again = await put(database, new(version="2"))
    assert (again.created_at, again.version) == (first.created_at, "2")
    async with database.read() as connection:
        assert [one.name for one in await credentials.list_of_user(connection, USER)] == ["github", "gitlab"]
        every = [(one.user_id, one.name) for one in await credentials.page(connection, Place("", ""), 10)]
        assert every == [(OTHER, "github"), (USER, "github"), (USER, "gitlab")]
        assert len(await credentials.page(connection, Place(USER, "github"), 10)) == 1
    async with database.write() as connection:
        await credentials.remove(connection, USER, "github")
    with pytest.raises(NotFoundError):
        async with database.write() as connection:
            await credentials.remove(connection, USER, "github")
    theirs = await find(database, user=OTHER)
    assert theirs is not None
    assert theirs.version == "theirs"


async def test_there_may_be_only_so_many(database: Database) -> None:
    async with database.write() as connection:
        for number in range(credentials.CREDENTIALS_MAX):
            await credentials.put(connection, new(f"n{number}"))
    with pytest.raises(TooManyError):
        await put(database, new("one-more"))
    await put(database, new("n1", version="2"))


async def test_one_refreshes(database: Database) -> None:
    known = await put(database, new())

    async def claim() -> bool:
        async with database.write() as connection:
            return await credentials.claim_refresh(connection, known, lease(60))

    assert sorted(await asyncio.gather(*(claim() for _ in range(8)))) == [False] * 7 + [True]
    async with database.write() as connection:
        await credentials.let_go(connection, known)
    assert await claim()
    async with database.write() as connection:
        await credentials.refreshed(connection, known, new(version="2"))
    assert not await claim(), "of a version that is not stored any more, nothing is refreshed"
    async with database.write() as connection:
        await credentials.reject(connection, known)
        await credentials.refreshed(connection, known, new(version="late"))
    stored = await find(database)
    assert stored is not None
    assert (stored.version, stored.sealed, stored.status) == ("2", "sealed 2", CredentialStatus.CONNECTED)


async def test_a_lease_ends(database: Database) -> None:
    """Of a worker that died as it refreshed."""
    known = await put(database, new())
    async with database.write() as connection:
        assert await credentials.claim_refresh(connection, known, lease(-1))
        assert await credentials.claim_refresh(connection, known, lease(60))


async def test_a_state_is_taken_once(database: Database) -> None:
    begun = BegunConnection("hash", "browser", USER, "github", "sealed", lease(60))
    async with database.write() as connection:
        await credentials.begin(connection, begun)

    async def take() -> BegunConnection | None:
        async with database.write() as connection:
            return await credentials.take_begun(connection, "hash")

    taken = await asyncio.gather(*(take() for _ in range(5)))
    assert [one for one in taken if one is not None] == [begun]


async def test_a_credential_that_comes_as_its_call_begins_to_wait_is_not_missed(database: Database, turn: None) -> None:
    """Whichever is first: the call does not wait, or whoever stores the credential sees that it waits."""
    for number in range(8):

        async def connect(call: str = f"c{number}") -> list[str]:
            await put(database, new(version=call))
            async with database.read() as connection:
                return [row.tool_call_id for row in await parked.waiting_to_connect(connection, USER, "github")]

        (row, waiting) = await asyncio.gather(park(database, f"c{number}"), connect())
        assert row.status is ParkedStatus.ALLOWED or row.tool_call_id in waiting
        async with database.write() as connection:
            await parked.settle(connection, row.id, ParkedStatus.SKIPPED)
            await credentials.remove(connection, USER, "github")


async def test_what_waits_although_the_credential_is_there_is_found(database: Database, turn: None) -> None:
    """Of a process that died between the two."""
    row = await park(database, "c")
    assert row.status is ParkedStatus.WAITING
    later = utc_now() + timedelta(minutes=1)

    async def found() -> list[str]:
        async with database.read() as connection:
            return [one.id for one in await parked.connected_and_waiting(connection, later, 10)]

    await put(database, new(user=OTHER))
    assert await found() == []
    stored = await put(database, new())
    assert await found() == [row.id]
    async with database.write() as connection:
        await credentials.reject(connection, stored)
    assert await found() == []
