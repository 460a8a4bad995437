"""Versions of a message: what is replaced leaves the conversation and stays stored; nothing changes under a turn."""

import asyncio

import pytest

from longhaul.contracts import TurnStatus
from longhaul.db import conversation, sessions, versions
from longhaul.db.acceptance import Accepted
from longhaul.db.database import Database
from longhaul.db.messages import row_id
from longhaul.db.versions import NewVersion
from longhaul.errors import MessageIdUsedError, NotFoundError, TurnRunsError
from testkit import checks
from tests.longhaul.db.conftest import SESSION, USER
from tests.longhaul.db.test_messages import accept, append, begin, end, next_sequence, place, row


async def replace(
    database: Database, version: str, of: str, content: str = "other", *, user: str = USER, lost: str = ""
) -> Accepted:
    async with database.write() as connection:
        return await versions.replace(
            connection, SESSION, user, NewVersion(version, of, content, None), lost_turn_id=lost
        )


async def turn(database: Database, message: str) -> str:
    """A whole turn of one message; its id."""
    accepted = await accept(database, message)
    await begin(database, accepted.turn_id)
    await append(database, row(f"answer to {message}", turn_id=accepted.turn_id, round=1))
    await end(database, accepted.turn_id)
    return accepted.turn_id


async def visible(database: Database) -> list[str]:
    async with database.read() as connection:
        page, _ = await conversation.page(connection, SESSION, USER, 50, None)
        shown = [one.id for one in await conversation.for_model(connection, SESSION)]
    assert shown == [one.id for one in page], "people and models see the same"
    return [one.client_message_id or one.id for one in page]


async def test_a_version_replaces_the_message_and_what_follows(database: Database) -> None:
    first, _ = await turn(database, "m1"), await turn(database, "m2")
    accepted = await replace(database, "m1.1", of="m1")
    assert accepted.starts_turn
    assert accepted.turn_id == accepted.run_turn_id != first
    assert await visible(database) == []
    await begin(database, accepted.turn_id)
    assert await visible(database) == ["m1.1"]
    rows = (await checks.stored(database)).of(SESSION)
    assert [one.sequence for one in rows] == list(range(5))
    assert await next_sequence(database) == 5
    async with database.read() as connection:
        found = await versions.of_message(connection, SESSION, "m1")
    assert [(one.client_message_id, one.content, one.replaced_by) for one in found] == [
        ("m1", "hello", accepted.turn_id),
        ("m1.1", "other", None),
    ]
    assert versions.current(found) == found[1]


async def test_what_came_before_stays(database: Database) -> None:
    await turn(database, "m1")
    await turn(database, "m2")
    await begin(database, (await replace(database, "m2.1", of="m2")).turn_id)
    assert await visible(database) == ["m1", "answer to m1", "m2.1"]


async def test_the_same_version_again_changes_nothing(database: Database) -> None:
    await turn(database, "m1")
    accepted = await replace(database, "m1.1", of="m1")
    again = await replace(database, "m1.1", of="m1")
    assert again == accepted
    await begin(database, accepted.turn_id)
    again = await replace(database, "m1.1", of="m1")
    assert (again.turn_id, again.taken, again.starts_turn) == (accepted.turn_id, True, True)
    with pytest.raises(MessageIdUsedError):
        await replace(database, "m1.1", of="m1", content="something else")


async def test_nothing_is_replaced_while_a_turn_runs_or_a_message_waits(database: Database) -> None:
    await turn(database, "m1")
    waiting = await accept(database, "m2")
    with pytest.raises(TurnRunsError):
        await replace(database, "m1.1", of="m1")
    await begin(database, waiting.turn_id)
    with pytest.raises(TurnRunsError) as refused:
        await replace(database, "m1.1", of="m1")
    assert refused.value.turn_id == waiting.turn_id
    assert await visible(database) == ["m1", "answer to m1", "m2"]
    assert (await replace(database, "m1.1", of="m1", lost=waiting.turn_id)).starts_turn


async def test_a_race_of_versions_messages_and_the_end(database: Database) -> None:
    """Whichever comes first: one version at most takes the place, and no message is lost with it."""
    running = await accept(database, "m1")
    await begin(database, running.turn_id)

    async def version(number: int) -> str:
        try:
            return (await replace(database, f"m1.{number}", of="m1")).turn_id
        except TurnRunsError:
            return ""

    finished = end(database, running.turn_id, TurnStatus.CANCELLED)
    made, _, joined = await asyncio.gather(
        asyncio.gather(*(version(number) for number in range(5))), finished, accept(database, "m2")
    )
    assert len(set(made) - {""}) <= 1
    await place(database, joined.turn_id)
    async with database.read() as connection:
        [m2] = await versions.of_message(connection, SESSION, "m2")
    assert m2.sequence is not None
    assert m2.replaced_by is None
    assert m2.id == row_id(SESSION, "user", "m2")


async def test_a_foreign_session_is_not_there(database: Database) -> None:
    await turn(database, "m1")
    with pytest.raises(NotFoundError):
        await replace(database, "m1.1", of="m1", user="somebody else")


async def test_a_summary_of_what_was_taken_out_no_longer_counts(database: Database) -> None:
    """An edit of what no summary tells of leaves it. One before that goes back to an earlier summary, or to none."""
    for number in range(4):
        await turn(database, f"m{number}")  # sequences 2n and 2n + 1
    await summarise(database, "s1", until=1)  # 8
    await turn(database, "m4")  # 9, 10
    await summarise(database, "s2", until=10)  # 11
    await turn(database, "m5")  # 12, 13

    await end_version(database, "m5")
    assert await summary(database) == ("s2", 10)
    await end_version(database, "m4")
    assert await summary(database) == ("s1", 1)
    await end_version(database, "m1")
    assert await summary(database) == ("s1", 1)
    await end_version(database, "m0")
    assert await summary(database) == (None, None)
    assert await visible(database) == ["m0.1"]


async def end_version(database: Database, of: str) -> None:
    """Replace a message; a turn takes the new version and ends."""
    accepted = await replace(database, f"{of}.1", of=of)
    await begin(database, accepted.turn_id)
    await end(database, accepted.turn_id)


async def summarise(database: Database, summary_id: str, until: int) -> None:
    """Store a summary of the rows up to a sequence."""
    stored = row(summary_id)._replace(role="system", kind="summary", context={"until": until})
    await append(database, stored)
    async with database.write() as connection:
        await sessions.note_summary(connection, SESSION, summary_id, until)


async def summary(database: Database) -> tuple[str | None, int | None]:
    async with database.read() as connection:
        session = await sessions.get(connection, SESSION)
    return session.summary_id, session.summarised_until
