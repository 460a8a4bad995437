"""Messages that are added and deleted, and retries: the conversation changes, and no row is lost or moved."""

import asyncio
from typing import Any

import pytest

from longhaul.contracts import TurnStatus
from longhaul.db import conversation, edits, turns
from longhaul.db.database import Database
from longhaul.db.messages import StoredMessage, row_id
from longhaul.db.models import DELETED, utc_now
from longhaul.db.turns import NewTurn
from longhaul.errors import MessageIdUsedError, NotFoundError, TurnRunsError
from testkit import checks
from tests.longhaul.db.conftest import SESSION, USER
from tests.longhaul.db.test_messages import accept, append, begin, calling, end, next_sequence, place, row
from tests.longhaul.db.test_versions import end_version, summarise, summary, turn, visible


async def add(
    database: Database, message_id: str, role: str = "user", content: str = "added", **more: Any
) -> StoredMessage:
    async with database.write() as connection:
        added = edits.added_row(SESSION, message_id, role, content)
        return await edits.append(connection, SESSION, more.pop("user", USER), added, **more)


async def delete(database: Database, message_id: str, *, user: str = USER, lost: str = "") -> None:
    async with database.write() as connection:
        await edits.delete(connection, SESSION, user, message_id, lost_turn_id=lost)


async def found(database: Database, message_id: str) -> edits.Place:
    async with database.read() as connection:
        return await edits.find(connection, SESSION, message_id)


async def with_follow_up(database: Database) -> str:
    """A turn of m1 with a tool call, the follow-up f1 and two answers, in sequences 0 to 4; its id."""
    accepted = await accept(database, "m1")
    await begin(database, accepted.turn_id)
    await append(
        database,
        calling("call", "c1", turn=accepted.turn_id),
        row("result", "tool", tool_call_id="c1", turn_id=accepted.turn_id, round=1),
    )
    await accept(database, "f1")
    await place(database, accepted.turn_id, round_=1, of_all_turns=False, kind="follow_up")
    await append(database, row("answer", turn_id=accepted.turn_id, round=2))
    await end(database, accepted.turn_id)
    return accepted.turn_id


async def test_an_added_message_is_the_last_one_and_starts_no_turn(database: Database) -> None:
    await turn(database, "m1")
    added = await add(database, "a1", "assistant")
    assert (added.sequence, added.turn_id, added.client_message_id) == (2, None, "a1")
    assert await visible(database) == ["m1", "answer to m1", "a1"]
    assert await next_sequence(database) == 3
    assert await add(database, "a1", "assistant") == added, "the same again is the same"
    for role, content in (("user", "added"), ("assistant", "other")):
        with pytest.raises(MessageIdUsedError):
            await add(database, "a1", role, content)
    with pytest.raises(MessageIdUsedError):
        await accept(database, "a1", content="added")
    with pytest.raises(MessageIdUsedError):
        await add(database, "m1", "user", "hello")
    with pytest.raises(NotFoundError):
        await add(database, "a2", user="somebody else")


async def test_nothing_is_added_or_deleted_while_a_turn_runs_or_a_message_waits(database: Database) -> None:
    """A row between a call and its result would make the conversation invalid for the model."""
    await turn(database, "m1")
    waiting = await accept(database, "m2")
    for begun in (False, True):
        if begun:
            await begin(database, waiting.turn_id)
        with pytest.raises(TurnRunsError):
            await add(database, "a1")
        with pytest.raises(TurnRunsError):
            await delete(database, "m1")
    await add(database, "a1", lost_turn_id=waiting.turn_id)
    await delete(database, "m1", lost=waiting.turn_id)
    assert await visible(database) == ["m2", "a1"]


async def test_a_race_of_added_messages_and_turns_leaves_no_gap(database: Database) -> None:
    async def try_to_add(number: int) -> int:
        try:
            return (await add(database, f"a{number}")).sequence
        except TurnRunsError:
            return -1

    async def talk() -> None:
        for number in (1, 2):  # one after the other: two at once would be one turn
            accepted = await accept(database, f"m{number}")
            await begin(database, accepted.turn_id)
            await end(database, accepted.turn_id)

    added, _ = await asyncio.gather(asyncio.gather(*(try_to_add(number) for number in range(8))), talk())
    rows = (await checks.stored(database)).of(SESSION)
    assert [one.sequence for one in rows] == list(range(len(rows)))
    assert len(rows) == 2 + len([one for one in added if one >= 0])


async def test_a_deleted_exchange_is_kept_out_of_sight(database: Database) -> None:
    for message in ("m1", "m2", "m3"):
        await turn(database, message)
    await delete(database, "m2")
    assert await visible(database) == ["m1", "answer to m1", "m3", "answer to m3"]
    rows = (await checks.stored(database)).of(SESSION)
    assert [one.sequence for one in rows] == list(range(6))
    assert [one.replaced_by for one in rows] == [None, None, DELETED, DELETED, None, None]
    for gone in ("m2", "answer to m2", "unknown"):
        with pytest.raises(NotFoundError):
            await delete(database, gone)
    with pytest.raises(NotFoundError):
        await delete(database, "m1", user="somebody else")


async def test_an_answer_names_its_exchange(database: Database) -> None:
    await turn(database, "m1")
    of_m2 = await turn(database, "m2")
    await delete(database, "answer to m1")
    assert await visible(database) == ["m2", "answer to m2"]
    await delete(database, of_m2)
    assert await visible(database) == []


async def test_a_follow_up_goes_with_what_answered_it_and_calls_with_their_results(database: Database) -> None:
    await with_follow_up(database)
    await turn(database, "m2")
    await delete(database, "f1")
    assert await visible(database) == ["m1", "call", "result", "m2", "answer to m2"]
    await delete(database, "result")
    assert await visible(database) == ["m2", "answer to m2"]


async def test_added_messages_leave_alone(database: Database) -> None:
    await turn(database, "m1")
    await add(database, "note", "system")
    await turn(database, "m2")
    await delete(database, "m1")
    assert await visible(database) == ["note", "m2", "answer to m2"]
    await delete(database, "note")
    assert await visible(database) == ["m2", "answer to m2"]


async def test_summaries_that_tell_of_what_was_deleted_no_longer_count(database: Database) -> None:
    await turn(database, "m0")  # 0, 1
    await summarise(database, "s1", until=1)  # 2
    await turn(database, "m1")  # 3, 4
    await summarise(database, "s2", until=4)  # 5
    await turn(database, "m2")  # 6, 7
    await delete(database, "m2")
    assert await summary(database) == ("s2", 4)
    await delete(database, "m1")
    assert await summary(database) == ("s1", 1)
    await delete(database, "m0")
    assert await summary(database) == (None, None)


async def test_a_message_is_found_by_each_of_its_names(database: Database) -> None:
    turn_id = await with_follow_up(database)
    assert await found(database, "m1") == (0, 0, False, False)
    assert await found(database, row_id(SESSION, "user", "m1")) == (0, 0, False, False)
    assert await found(database, "call") == (1, 2, False, False), "a call is nothing without its results"
    assert await found(database, "result") == (2, 2, False, False)
    assert await found(database, turn_id) == (1, 2, False, False), "the chat's message, up to the follow-up"
    assert await found(database, f"{turn_id}:f1") == (4, 4, False, False)
    await accept(database, "waits")
    for unknown in ("waits", f"{turn_id}:m9", "unknown"):
        with pytest.raises(NotFoundError):
            await found(database, unknown)


async def test_the_first_version_of_a_message(database: Database) -> None:
    turn_id = await with_follow_up(database)
    await turn(database, "m2")
    await end_version(database, "m2")
    names = {"m1": "m1", "call": "m1", turn_id: "m1", "answer": "f1", "m2": "m2", "m2.1": "m2"}
    async with database.read() as connection:
        for name, first in names.items():
            assert await edits.first_version(connection, SESSION, name) == first
        with pytest.raises(NotFoundError):
            await edits.first_version(connection, SESSION, "unknown")


async def retry(database: Database, turn_id: str, new_id: str = "again") -> bool:
    again = NewTurn(new_id, SESSION, USER, "m", "fast", "standard", utc_now(), retry_of=turn_id)
    async with database.write() as connection:
        return await edits.begin_retry(connection, again)


async def failed(database: Database) -> str:
    """A turn that made a call, got its result, and failed in the next round; its id."""
    turn_id = (await accept(database, "m1")).turn_id
    await begin(database, turn_id)
    rows = [
        calling("call", "c1", turn=turn_id),
        row("result", "tool", tool_call_id="c1", turn_id=turn_id, round=1),
        row("thought", "reasoning", turn_id=turn_id, round=2),
        row("half an answer", kind="partial", turn_id=turn_id, round=2),
        row("error", kind="error", is_error=True, turn_id=turn_id, round=3),
    ]
    await append(database, *rows)
    await end(database, turn_id, TurnStatus.FAILED)
    return turn_id


async def test_a_retry_keeps_what_was_done_and_takes_out_the_failed_end(database: Database) -> None:
    turn_id = await failed(database)
    assert await retry(database, turn_id)
    assert await retry(database, turn_id), "an activity may run twice"
    async with database.read() as connection:
        shown = await conversation.for_model(connection, SESSION)
        newest = await turns.newest(connection, SESSION)
    assert [one.client_message_id or one.id for one in (await checks.stored(database)).of(SESSION) if one.replaced_by]
    assert [one.id for one in shown][1:] == ["call", "result"]
    assert newest is not None
    assert (newest.turn_id, newest.retry_of, newest.status) == ("again", turn_id, TurnStatus.RUNNING)
    replaced = {one.id: one.replaced_by for one in (await checks.stored(database)).of(SESSION)}
    assert [replaced[one] for one in ("thought", "half an answer", "error")] == ["again"] * 3
    await end(database, "again", TurnStatus.FAILED)
    assert not await retry(database, turn_id, "third"), "another turn followed"
    assert await retry(database, "again", "third")


@pytest.mark.parametrize("status", [TurnStatus.COMPLETED, TurnStatus.CANCELLED])
async def test_only_a_failed_turn_is_retried(database: Database, status: TurnStatus) -> None:
    turn_id = (await accept(database, "m1")).turn_id
    await begin(database, turn_id)
    await end(database, turn_id, status)
    assert not await retry(database, turn_id)
    assert await visible(database) == ["m1"]
    async with database.read() as connection:
        assert await turns.get(connection, SESSION, "again") is None


async def test_a_turn_that_was_lost_is_failed_by_its_retry(database: Database) -> None:
    turn_id = (await accept(database, "m1")).turn_id
    await begin(database, turn_id)
    assert await retry(database, turn_id)
    async with database.read() as connection:
        lost = await turns.get(connection, SESSION, turn_id)
    assert lost is not None
    assert lost.status is TurnStatus.FAILED
