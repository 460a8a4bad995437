"""The tools that clients declare: stored once, and found again by the turn that takes the message."""

import pytest

from longhaul.db import acceptance, client_tools, messages, versions
from longhaul.db.database import Database
from longhaul.db.versions import NewVersion
from longhaul.errors import NotFoundError
from longhaul.tools.client_tools import ClientTool
from tests.longhaul.db.conftest import SESSION, USER

WEATHER = ClientTool("weather", "Tells the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})


async def accept(database: Database, message: str, declared: str | None) -> None:
    async with database.write() as connection:
        await acceptance.accept(
            connection,
            session_id=SESSION,
            user_id=USER,
            message_id=message,
            content=message,
            context=None,
            limit=0,
            client_tools=declared,
        )


async def test_the_same_tools_are_stored_once(database: Database) -> None:
    async with database.write() as connection:
        first = await client_tools.keep(connection, SESSION, [WEATHER])
        assert await client_tools.keep(connection, SESSION, [WEATHER]) == first
        other = await client_tools.keep(connection, SESSION, [WEATHER._replace(description="Another.")])
        assert await client_tools.keep(connection, SESSION, []) == ""
        with pytest.raises(NotFoundError):
            await client_tools.keep(connection, "no session", [WEATHER])
    async with database.read() as connection:
        assert await client_tools.load(connection, first) == [WEATHER]
        assert [tool.description for tool in await client_tools.load(connection, other)] == ["Another."]
        assert await client_tools.load(connection, "") == []
        assert await client_tools.load(connection, "gone") == []


async def test_the_newest_declaration_counts(database: Database) -> None:
    for message, declared in (("m1", "first"), ("m2", None), ("m3", "second"), ("m4", None)):
        await accept(database, message, declared)
    async with database.write() as connection:
        placed = await acceptance.place_waiting(connection, SESSION, turn_id="t", round_=0, kind="message")
    assert placed.message_ids == []
    async with database.write() as connection:
        placed = await acceptance.place_waiting(
            connection, SESSION, turn_id="t", round_=0, kind="message", of_all_turns=True
        )
    assert placed == (["m1", "m2", "m3", "m4"], "second")


@pytest.mark.parametrize(("declares", "has"), [(None, "first"), ("", ""), ("second", "second")])
async def test_a_new_version_has_the_tools_of_the_old_one(database: Database, declares: str | None, has: str) -> None:
    """Unless it declares others, or none."""
    await accept(database, "m1", "first")
    async with database.write() as connection:
        await acceptance.place_waiting(connection, SESSION, turn_id="t", round_=0, kind="message", of_all_turns=True)
        await versions.replace(connection, SESSION, USER, NewVersion("m2", "m1", "again", None, client_tools=declares))
        placed = await acceptance.place_waiting(
            connection, SESSION, turn_id="u", round_=0, kind="message", of_all_turns=True
        )
        assert placed.client_tools == has
        stored = await messages.get(connection, messages.row_id(SESSION, "user", "m2"))
        assert stored is not None
        assert stored.client_tools == has
