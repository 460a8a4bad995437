"""Accepting, placing and appending: gapless, once, whoever else writes at the same time."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from longhaul.contracts import Progress, TurnStatus
from longhaul.db import conversation, messages, sessions, turns
from longhaul.db.conversation import OpenToolCall
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage, StoredMessage
from longhaul.db.models import SessionRow, utc_now
from longhaul.db.sessions import NewSession
from longhaul.db.turns import NewTurn
from longhaul.errors import InboxFullError, MessageIdUsedError, NotFoundError
from tests.longhaul.db.conftest import SESSION, USER

LOST = "NUL \x00, a lone surrogate \ud83d, and ü🙂"
KEPT = "NUL \ufffd, a lone surrogate ?, and ü🙂"


async def accept(
    database: Database, message_id: str, *, user: str = USER, content: str = "hello", limit: int = 10, **more: Any
) -> messages.Accepted:
    values = {"session_id": SESSION, "context": None, **more}
    async with database.write() as connection:
        return await messages.accept(
            connection, user_id=user, message_id=message_id, content=content, limit=limit, **values
        )


async def append(database: Database, *rows: NewMessage) -> list[str]:
    async with database.write() as connection:
        return await messages.append(connection, SESSION, rows)


async def place(database: Database, *ids: str, turn: str = "turn", round_: int = 0) -> list[str]:
    async with database.write() as connection:
        return await messages.place_in_turn(connection, SESSION, ids, turn_id=turn, round_=round_, kind="message")


async def stored(database: Database) -> list[StoredMessage]:
    async with database.read() as connection:
        return (await conversation.page(connection, SESSION, USER, 200, None))[0]


async def waiting(database: Database) -> list[str]:
    async with database.read() as connection:
        return [row.client_message_id for row in await messages.list_waiting(connection, SESSION)]


async def next_sequence(database: Database) -> int | None:
    async with database.read() as connection:
        found: int | None = await connection.scalar(select(SessionRow.next_sequence).where(SessionRow.id == SESSION))
        return found


def row(id_: str, role: str = "assistant", **more: Any) -> NewMessage:
    return NewMessage(id_, role, id_, **more)


def calling(id_: str, *ids: str, turn: str = "t", round_: int = 1) -> NewMessage:
    made = [{"id": call, "type": "function", "function": {"name": f"n-{call}", "arguments": "{}"}} for call in ids]
    return row(id_, tool_calls=made, turn_id=turn, round=round_)


async def test_six_at_once_get_six_consecutive_sequences(database: Database) -> None:
    await append(database, row("before"))
    await asyncio.gather(*(append(database, row(f"row-{number}")) for number in range(6)))
    rows = await stored(database)
    assert [found.sequence for found in rows] == list(range(7))
    assert {found.id for found in rows[1:]} == {f"row-{number}" for number in range(6)}
    assert await next_sequence(database) == 7


async def test_writers_of_all_kinds_at_once_leave_no_gap(database: Database) -> None:
    await asyncio.gather(*(accept(database, f"m{number}", limit=0) for number in range(6)))
    work = [append(database, row(f"a{number}"), row(f"b{number}")) for number in range(6)]
    work += [append(database, row("a0"), row("c")) for _ in range(3)]
    await asyncio.gather(*work, *(place(database, f"m{number}", "m0") for number in range(6)))
    rows = await stored(database)
    assert [found.sequence for found in rows] == list(range(6 + 12 + 1))
    assert len({found.id for found in rows}) == len(rows)
    assert await waiting(database) == []


async def test_appending_again_changes_nothing(database: Database) -> None:
    assert await append(database, row("a"), row("b"), row("a")) == ["a", "b"]
    assert await append(database, row("b"), row("c"), row("a")) == ["c"]
    assert await append(database, row("a")) == []
    assert [(found.id, found.sequence) for found in await stored(database)] == [("a", 0), ("b", 1), ("c", 2)]
    assert await append(database) == []


async def test_the_session_must_be_there(database: Database) -> None:
    async with database.write() as connection:
        with pytest.raises(NotFoundError):
            await messages.append(connection, "other", [row("a")])
        with pytest.raises(NotFoundError):
            await messages.place_in_turn(connection, "other", ["a"], turn_id="t", round_=0, kind="message")
    with pytest.raises(NotFoundError):
        await accept(database, "m", user="somebody")
    with pytest.raises(NotFoundError):
        await accept(database, "m", session_id="other")
    assert await waiting(database) == []


async def test_accepting_again_changes_nothing(database: Database) -> None:
    first = await accept(database, "m", content="one", limit=1)
    again = await accept(database, "m", content="one", limit=1)
    with pytest.raises(MessageIdUsedError):
        await accept(database, "m", content="two", limit=1)
    assert (first.waiting, first.placed_in) == (1, None)
    assert (again.waiting, again.placed_in) == (1, None)
    assert again.row_id == first.row_id
    await place(database, "m", turn="t1")
    placed = await accept(database, "m", content="one", limit=1)
    assert (placed.waiting, placed.placed_in) == (0, "t1")
    assert [found.content for found in await stored(database)] == ["one"]


@pytest.mark.parametrize("limit", [1, 10, 19])
async def test_the_limit_is_exact_when_twenty_come_at_once(database: Database, limit: int) -> None:
    answers = await asyncio.gather(
        *(accept(database, f"m{number}", limit=limit) for number in range(20)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, InboxFullError)]
    accepted = [answer for answer in answers if isinstance(answer, messages.Accepted)]
    assert (len(accepted), len(refused)) == (limit, 20 - limit), answers
    assert sorted(answer.waiting for answer in accepted) == list(range(1, limit + 1))
    assert {(answer.waiting, answer.limit) for answer in refused} == {(limit, limit)}
    assert len(await waiting(database)) == limit
    await place(database, *await waiting(database))
    assert (await accept(database, "later", limit=limit)).waiting == 1


async def test_without_a_limit_all_are_taken(database: Database) -> None:
    for number in range(15):
        await accept(database, f"m{number}", limit=0)
    assert await waiting(database) == [f"m{number}" for number in range(15)]


async def test_placing_keeps_the_order_asked_for_and_is_repeatable(database: Database) -> None:
    for message_id in ("a", "b", "c"):
        await accept(database, message_id)
    assert await place(database, "c", "unknown", "a", turn="t1", round_=2) == ["c", "a"]
    assert await place(database, "c", "unknown", "a", turn="t1", round_=2) == ["c", "a"]
    assert await place(database, "a", "b", turn="t1", round_=3) == ["b"], "another round's stay where they are"
    assert await place(database, "a", "b", "c", turn="t2", round_=2) == []
    found = [(row.client_message_id, row.sequence, row.turn_id, row.round) for row in await stored(database)]
    assert found == [("c", 0, "t1", 2), ("a", 1, "t1", 2), ("b", 2, "t1", 3)]


async def place_all(database: Database, turn: str = "turn", round_: int = 0) -> list[str]:
    async with database.write() as connection:
        return await messages.place_all_waiting(connection, SESSION, turn_id=turn, round_=round_, kind="message")


async def test_all_waiting_messages_are_placed_in_the_order_of_acceptance(database: Database) -> None:
    async with database.write() as connection:
        await sessions.create(connection, NewSession("second", USER))
    await accept(database, "elsewhere", session_id="second")
    for message_id in ("c", "a", "b"):
        await accept(database, message_id)
    await append(database, row("answer"))
    assert await place_all(database) == ["c", "a", "b"]
    await accept(database, "later")
    assert await place_all(database, "next") == ["later"]
    assert await place_all(database) == ["c", "a", "b"], "a repeated call returns the same"
    assert await place_all(database, round_=1) == []
    stored_rows = [(row.client_message_id, row.sequence, row.turn_id) for row in await stored(database)]
    assert stored_rows[1:] == [("c", 1, "turn"), ("a", 2, "turn"), ("b", 3, "turn"), ("later", 4, "next")]
    assert await next_sequence(database) == 5


async def test_the_same_client_id_in_two_sessions_is_two_messages(database: Database) -> None:
    async with database.write() as connection:
        await sessions.create(connection, NewSession("second", USER))
    assert (await accept(database, "m")).waiting == 1
    assert (await accept(database, "m", session_id="second")).waiting == 1


async def test_any_text_can_be_stored(database: Database) -> None:
    await accept(database, "m", content=LOST, context={"url": "u", "content": LOST})
    await place(database, "m")
    calls = [{"id": "c", "type": "function", "function": {"name": "n", "arguments": LOST}}]
    await append(database, NewMessage("a", "assistant", LOST, tool_calls=calls))
    user, answer = await stored(database)
    assert (user.content, answer.content) == (KEPT, KEPT)
    assert (user.context, answer.tool_calls) == ({"url": "u", "content": LOST}, calls), "JSON keeps it all"


async def test_titles_contexts_and_errors_can_be_anything_too(database: Database) -> None:
    async with database.write() as connection:
        await sessions.create(connection, NewSession("x", USER, title=LOST, system_context=LOST))
        await sessions.rename(connection, SESSION, USER, LOST * 50)
        found = await sessions.get(connection, "x")
        assert (found.title, found.system_context) == (KEPT, KEPT)
        assert (await sessions.get(connection, SESSION)).title == (KEPT * 50)[: sessions.TITLE_MAX]


async def test_open_calls_are_those_without_a_result_of_their_turn(database: Database) -> None:
    await append(
        database,
        calling("1", "a", "b", turn="t1"),
        messages.tool_row("t1", 1, "b", "n-b", "B"),
        row("2", turn_id="t1", round=2),
        calling("3", "a", "c", turn="t2", round_=4),
        messages.tool_row("t2", 4, "a", "n-a", "A"),
    )
    async with database.read() as connection:
        assert await conversation.open_tool_calls(connection, SESSION, last=400) == [
            OpenToolCall("a", "n-a", turn_id="t1", round=1),
            OpenToolCall("c", "n-c", turn_id="t2", round=4),
        ]
        assert await conversation.open_tool_calls(connection, SESSION, last=2) == [
            OpenToolCall("c", "n-c", turn_id="t2", round=4)
        ]
        assert await conversation.open_tool_calls(connection, "other", last=400) == []
        of_turn = await conversation.open_tool_calls_of_turn(connection, "t1")
        assert of_turn == [OpenToolCall("a", "n-a", turn_id="t1", round=1)]


async def test_open_calls_of_the_turn_before(database: Database) -> None:
    started = utc_now()
    async with database.write() as connection:
        for number in range(3):
            at = started + timedelta(seconds=number)
            await turns.start(connection, NewTurn(f"t{number}", SESSION, USER, "m", "fast", "standard", at))
    await append(database, *(calling(f"{number}", f"c{number}", turn=f"t{number}") for number in range(3)))
    async with database.read() as connection:
        before = await conversation.open_tool_calls_before(connection, SESSION, "t2")
        assert before == [OpenToolCall("c1", "n-c1", turn_id="t1", round=1)]
        assert await conversation.open_tool_calls_before(connection, "other", "t2") == []


async def test_a_turn_is_started_and_ended_once(database: Database) -> None:
    turn = NewTurn("t1", SESSION, USER, model="m", mode="fast", tier="standard", started_at=utc_now())
    async with database.write() as connection:
        await turns.start(connection, turn)
        await turns.start(connection, turn._replace(model="other"))
        await turns.start(connection, turn._replace(turn_id="t2"))
        one = await turns.get(connection, SESSION, "t1")
        two = await turns.get(connection, SESSION, "t2")
    assert one is not None
    assert two is not None
    assert (one.model, one.status, one.error) == ("m", "failed", turns.WORKFLOW_LOST)
    assert (two.status, two.ended_at) == ("running", None)


@pytest.mark.parametrize("started", [True, False])
async def test_the_first_end_of_a_turn_stays(database: Database, started: bool) -> None:
    now = utc_now()
    turn = NewTurn("t1", SESSION, USER, model="m", mode="fast", tier="standard", started_at=now)
    progress = Progress(
        turn_id="t1", session_id=SESSION, status=TurnStatus.FAILED, started_at=now, ended_at=now, error=LOST
    )
    async with database.write() as connection:
        if started:
            await turns.start(connection, turn)
        assert await turns.end(connection, turn, progress)
        assert not await turns.end(connection, turn, progress.model_copy(update={"status": TurnStatus.COMPLETED}))
        stored = await turns.get(connection, SESSION, "t1")
    assert stored is not None
    assert (stored.status, stored.error, stored.ended_at) == (TurnStatus.FAILED, KEPT, now)
    assert stored.progress is not None
    assert Progress.model_validate(stored.progress).status is TurnStatus.FAILED


def test_ids_follow_from_what_a_row_is() -> None:
    assert messages.row_id("t", 1, "tool", "c") == messages.row_id("t", "1", "tool", "c")
    rng = random.Random(1)
    keys = {(f"t{rng.randrange(50)}", rng.randrange(50), rng.choice(["tool", "assistant"])) for _ in range(500)}
    assert len({messages.row_id(*key) for key in keys}) == len(keys)
