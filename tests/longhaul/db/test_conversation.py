"""Pages of a conversation, against the rules written down as plainly as possible."""

import random
from typing import Any

import pytest

from longhaul.db import acceptance, conversation, messages, sessions
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.db.sessions import NewSession
from tests.longhaul.db.conftest import SESSION, USER

PERSON = ("user", "assistant")


def expected(rows: list[NewMessage], limit: int, before: int | None) -> tuple[list[int], bool]:
    """The newest `limit`, back to the owner of the oldest tool row, and on by up to 200 to a person."""
    end = len(rows) if before is None else before
    start = max(0, end - limit)
    if start < end and rows[start].role == "tool":
        key = (rows[start].turn_id, rows[start].tool_call_id)
        owners = [
            place
            for place in range(start)
            if rows[place].role == "assistant"
            for call in rows[place].tool_calls or ()
            if (rows[place].turn_id, call["id"]) == key
        ]
        start = max(owners, default=start)
    if start < end and not any(row.role in PERSON for row in rows[start:end]):
        people = [place for place in range(max(0, start - 200), start) if rows[place].role in PERSON]
        start = max(people, default=max(0, start - 200))
    return list(range(start, end)), start > 0


def random_rows(rng: random.Random, size: int) -> list[NewMessage]:
    """Rows with many calls in a round, results far from their calls and out of order, ids that come again."""
    rows: list[NewMessage] = []
    turn, waiting = 0, list[tuple[str, str]]()
    while len(rows) < size:
        role = rng.choice(["user", "assistant", "assistant", "tool", "tool", "tool", "reasoning", "system"])
        if role == "user":
            turn += 1
        row = NewMessage(f"{len(rows)}", role, turn_id=f"t{turn}")
        if role == "assistant" and rng.random() < 0.7:
            ids = [f"c{number}" for number in range(rng.randrange(1, 5))]
            row = row._replace(tool_calls=[called(id_) for id_ in ids])
            waiting += [(f"t{turn}", id_) for id_ in ids]
        if role == "tool":
            if not waiting:
                continue
            turn_id, call_id = waiting.pop(rng.randrange(len(waiting)))
            row = row._replace(turn_id=turn_id, tool_call_id=call_id)
        rows.append(row)
    return rows


async def store(database: Database, rows: list[NewMessage]) -> None:
    async with database.write() as connection:
        await messages.append(connection, SESSION, rows)


async def page(database: Database, limit: int, before: int | None = None, user: str = USER) -> tuple[list[int], bool]:
    async with database.read() as connection:
        rows, more = await conversation.page(connection, SESSION, user, limit, before)
    return [row.sequence for row in rows], more


@pytest.mark.parametrize("seed", range(4))
async def test_all_pages_of_random_conversations(database: Database, seed: int) -> None:
    rng = random.Random(seed)
    rows = random_rows(rng, 40)
    await store(database, rows)
    for limit in (1, 2, 3, 7, 40, 200):
        for before in (None, 0, 1, 2, *rng.sample(range(3, 41), 6)):
            assert await page(database, limit, before) == expected(rows, limit, before), (limit, before)


async def test_paging_back_shows_every_row_once(database: Database) -> None:
    rows = random_rows(random.Random(9), 60)
    await store(database, rows)
    seen: list[int] = []
    before: int | None = None
    while True:
        found, more = await page(database, 5, before)
        seen = found + seen
        if not more:
            break
        before = found[0]
    assert seen == list(range(60))


def called(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "function": {"name": "n", "arguments": ""}}


def results(count: int, turn: str = "t") -> list[NewMessage]:
    """A call of many tools, and all their results."""
    owner = NewMessage("owner", "assistant", turn_id=turn, tool_calls=[called(f"c{n}") for n in range(count)])
    return [owner, *(NewMessage(f"r{n}", "tool", turn_id=turn, tool_call_id=f"c{n}") for n in range(count))]


async def test_pages_of_whole_turns_cut_no_turn(database: Database) -> None:
    turns = [f"t{turn}" for turn in range(6) for _ in range(turn + 2)]
    await store(database, [NewMessage(f"{n}", "assistant", turn_id=turn) for n, turn in enumerate(turns)])
    before: int | None = None
    found: list[str | None] = []
    while before != 0:
        async with database.read() as connection:
            rows, more = await conversation.page_of_whole_turns(connection, SESSION, USER, 3, before)
        assert rows[0].sequence == turns.index(rows[0].turn_id or "")
        found = [*(row.turn_id for row in rows), *found]
        assert more == (rows[0].sequence > 0)
        before = rows[0].sequence
    assert found == turns


async def test_the_owner_is_found_however_far_it_is(database: Database) -> None:
    user = NewMessage("u", "user", turn_id="t")
    await store(database, [user, *results(260)])
    assert await page(database, 5) == (list(range(1, 262)), True)


async def test_a_tool_row_without_an_owner_stays_alone_with_a_person(database: Database) -> None:
    orphan = NewMessage("x", "tool", turn_id="t", tool_call_id="nobody")
    await store(database, [NewMessage("u", "user"), NewMessage("s", "system"), orphan])
    assert await page(database, 1) == ([0, 1, 2], False)


@pytest.mark.parametrize(("silent", "shown"), [(199, 201), (200, 201), (201, 201), (210, 201)])
async def test_widening_ends_after_two_hundred_rows(database: Database, silent: int, shown: int) -> None:
    rows = [NewMessage("0", "user"), *(NewMessage(f"{n}", "reasoning") for n in range(1, silent + 1))]
    await store(database, rows)
    found, more = await page(database, 1)
    assert found == list(range(max(0, silent + 1 - shown), silent + 1))
    assert more is (silent >= 201)


async def test_waiting_messages_and_other_peoples_sessions_are_in_no_page(database: Database) -> None:
    await store(database, [NewMessage("a", "user"), *results(3)])
    async with database.write() as connection:
        await sessions.create(connection, NewSession("other", "somebody"))
        await messages.append(connection, "other", [NewMessage("theirs", "user")])
        await acceptance.accept(
            connection, session_id=SESSION, user_id=USER, message_id="m", content="x", context=None, limit=0
        )
    assert await page(database, 50) == ([0, 1, 2, 3, 4], False)
    for limit in (1, 50):  # 1: the oldest row is a tool row, which is looked up again
        assert await page(database, limit, user="somebody") == ([], False)


async def test_an_empty_conversation(database: Database) -> None:
    assert await page(database, 50) == ([], False)
    assert await page(database, 1, before=0) == ([], False)


async def for_model(database: Database, after: int = -1) -> list[int]:
    async with database.read() as connection:
        return [row.sequence for row in await conversation.for_model(connection, SESSION, after)]


async def test_a_model_sees_the_rows_behind_the_summary_and_two_messages_of_people(database: Database) -> None:
    rows = [NewMessage(f"{n}", ("user", "assistant")[n % 2], turn_id="t") for n in range(12)]
    rows += [
        NewMessage("r", "reasoning"),
        NewMessage("s", "system", kind="summary"),
        NewMessage("f", "user", kind="follow_up"),
    ]
    await store(database, [*rows, NewMessage("a", "assistant")])
    assert await for_model(database) == [*range(12), 14, 15]
    assert await for_model(database, after=5) == [0, *range(6, 12), 14, 15]
    assert await for_model(database, after=10) == [0, 10, 11, 14, 15], "the newest message, though it is summarised"
    assert await for_model(database, after=15) == [0, 10]


async def test_a_model_call_reads_no_more_rows_of_a_long_conversation(database: Database) -> None:
    """However many there are, also if no summary was ever made."""
    await store(database, [NewMessage(f"{n}", ("user", "assistant")[n % 2]) for n in range(5_000)])
    assert await for_model(database) == [0, *range(4_000, 5_000)]
    assert len(await for_model(database, after=4_989)) == 11
