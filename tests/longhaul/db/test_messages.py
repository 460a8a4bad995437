"""Accepting, placing and appending: gapless, once, whoever else writes at the same time."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from longhaul.contracts import Progress, TurnStatus
from longhaul.db import acceptance, busy, conversation, messages, sessions, turns
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
) -> acceptance.Accepted:
    values = {"session_id": SESSION, "context": None, **more}
    async with database.write() as connection:
        return await acceptance.accept(
            connection, user_id=user, message_id=message_id, content=content, limit=limit, **values
        )


async def append(database: Database, *rows: NewMessage) -> list[str]:
    async with database.write() as connection:
        return await messages.append(connection, SESSION, rows)


async def place(
    database: Database, turn: str = "turn", *, round_: int = 0, of_all_turns: bool = True, kind: str = "message"
) -> list[str]:
    async with database.write() as connection:
        placed = await acceptance.place_waiting(
            connection, SESSION, turn_id=turn, round_=round_, kind=kind, of_all_turns=of_all_turns
        )
    return placed.message_ids


async def begin(database: Database, turn_id: str) -> None:
    """Open a turn: it takes what waits, and has a row."""
    await place(database, turn_id)
    turn = NewTurn(turn_id, SESSION, USER, model="m", mode="fast", tier="standard", started_at=utc_now())
    async with database.write() as connection:
        await turns.start(connection, turn)


async def end(database: Database, turn_id: str, status: TurnStatus = TurnStatus.COMPLETED) -> None:
    now = utc_now()
    turn = NewTurn(turn_id, SESSION, USER, model="m", mode="fast", tier="standard", started_at=now)
    progress = Progress(turn_id=turn_id, session_id=SESSION, status=status, started_at=now, ended_at=now)
    async with database.write() as connection:
        await turns.end(connection, turn, progress)


async def stored(database: Database) -> list[StoredMessage]:
    async with database.read() as connection:
        return (await conversation.page(connection, SESSION, USER, 200, None))[0]


async def waiting(database: Database) -> list[str]:
    async with database.read() as connection:
        return [row.client_message_id for row in await acceptance.list_waiting(connection, SESSION)]


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
    await asyncio.gather(*work, *(place(database) for _ in range(6)))
    await place(database)
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
            await acceptance.place_waiting(connection, "other", turn_id="t", round_=0, kind="message")
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
    assert (first.waiting, first.taken, first.starts_turn) == (1, False, True)
    assert (again.waiting, again.taken, again.starts_turn) == (1, False, True)
    assert (again.row_id, again.turn_id, again.run_turn_id) == (first.row_id, first.turn_id, first.turn_id)
    await place(database, first.turn_id)
    taken = await accept(database, "m", content="one", limit=1)
    assert (taken.waiting, taken.taken, taken.turn_id) == (0, True, first.turn_id)
    assert taken.run_turn_id != first.turn_id, "no run may continue under the id of a turn that took the message"
    assert [found.content for found in await stored(database)] == ["one"]


@pytest.mark.parametrize("limit", [1, 10, 19])
async def test_the_limit_is_exact_when_twenty_come_at_once(database: Database, limit: int) -> None:
    answers = await asyncio.gather(
        *(accept(database, f"m{number}", limit=limit) for number in range(20)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, InboxFullError)]
    accepted = [answer for answer in answers if isinstance(answer, acceptance.Accepted)]
    assert (len(accepted), len(refused)) == (limit, 20 - limit), answers
    assert sorted(answer.waiting for answer in accepted) == list(range(1, limit + 1))
    assert {(answer.waiting, answer.limit) for answer in refused} == {(limit, limit)}
    assert len(await waiting(database)) == limit
    await place(database)
    assert (await accept(database, "later", limit=limit)).waiting == 1


async def test_without_a_limit_all_are_taken(database: Database) -> None:
    for number in range(15):
        await accept(database, f"m{number}", limit=0)
    assert await waiting(database) == [f"m{number}" for number in range(15)]


async def test_placing_keeps_the_order_of_acceptance_and_is_repeatable(database: Database) -> None:
    for message_id in ("c", "a"):
        await accept(database, message_id)
    assert await place(database, "t1") == ["c", "a"]
    assert await place(database, "t1") == ["c", "a"]
    await begin(database, "t1")
    assert (await accept(database, "b")).turn_id == "t1"
    assert await place(database, "t2", of_all_turns=False) == []
    assert await place(database, "t1", round_=3, of_all_turns=False, kind="follow_up") == ["b"]
    assert await place(database, "t1", round_=3, of_all_turns=False, kind="follow_up") == ["b"]
    assert await place(database, "t1") == ["c", "a"], "another round's stay where they are"
    found = [(row.client_message_id, row.sequence, row.turn_id, row.round, row.kind) for row in await stored(database)]
    assert found == [("c", 0, "t1", 0, "message"), ("a", 1, "t1", 0, "message"), ("b", 2, "t1", 3, "follow_up")]


async def test_messages_before_a_turn_has_begun_share_one_turn(database: Database) -> None:
    first, second = await accept(database, "a"), await accept(database, "b")
    assert (first.starts_turn, second.starts_turn) == (True, False)
    assert first.turn_id == first.run_turn_id == second.turn_id == second.run_turn_id


async def test_a_message_joins_the_turn_that_has_begun(database: Database) -> None:
    turn_id = (await accept(database, "a")).turn_id
    await begin(database, turn_id)
    joined = await accept(database, "b")
    assert (joined.turn_id, joined.starts_turn, joined.waiting) == (turn_id, False, 1)
    async with database.read() as connection:
        assert await busy.open_turn(connection, SESSION) == (turn_id, True)
    assert joined.run_turn_id != turn_id, "a run that finds the turn's workflow gone needs an id of its own"
    async with database.write() as connection:
        await messages.lock_session(connection, SESSION)
        assert await acceptance.any_waits_for(connection, SESSION, turn_id)
        assert not await acceptance.any_waits_for(connection, SESSION, "another")


@pytest.mark.parametrize("status", [TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED])
async def test_a_message_after_the_end_begins_the_next_turn(database: Database, status: TurnStatus) -> None:
    turn_id = (await accept(database, "a")).turn_id
    await begin(database, turn_id)
    await end(database, turn_id, status)
    following = await accept(database, "b")
    assert (following.starts_turn, following.run_turn_id) == (True, following.turn_id)
    assert following.turn_id != turn_id
    repeated = await accept(database, "a")
    assert (repeated.taken, repeated.turn_id) == (True, turn_id)


@pytest.mark.parametrize("begun", [True, False])
async def test_a_message_after_stop_begins_the_next_turn(database: Database, begun: bool) -> None:
    """Only what waited when Stop arrived is filed in the stopped turn, also when that turn had not begun."""
    turn_id = (await accept(database, "a")).turn_id
    if begun:
        await begin(database, turn_id)
        await accept(database, "waits")
    async with database.write() as connection:
        await turns.mark_stopped(connection, SESSION, turn_id)
        assert await busy.open_turn(connection, SESSION) is None
    later, latest = await accept(database, "b"), await accept(database, "c")
    assert later.turn_id == latest.turn_id != turn_id
    assert (later.starts_turn, latest.starts_turn) == (True, False)
    if not begun:
        assert await place(database, turn_id) == ["a"]
    assert await place(database, turn_id, round_=1, of_all_turns=False) == (["waits"] if begun else [])
    async with database.read() as connection:
        assert await acceptance.next_waiting_turn(connection, SESSION) == later.turn_id
    assert await place(database, later.turn_id) == ["b", "c"]


async def test_a_stop_of_an_ended_turn_takes_no_mark_away(database: Database) -> None:
    """It saw the turn before; meanwhile that one has ended, and a person has stopped the next one."""
    first = (await accept(database, "a")).turn_id
    await begin(database, first)
    await end(database, first, TurnStatus.COMPLETED)
    second = (await accept(database, "b")).turn_id
    await begin(database, second)
    async with database.write() as connection:
        await turns.mark_stopped(connection, SESSION, second)
        await turns.mark_stopped(connection, SESSION, first)
    later = await accept(database, "c")
    assert later.turn_id not in (first, second)
    assert later.starts_turn


async def test_a_message_of_a_lost_turn_gets_another_one(database: Database) -> None:
    """The turn's workflow was terminated, and its row was failed, before it took the message."""
    turn_id = (await accept(database, "a")).turn_id
    await begin(database, turn_id)
    assert (await accept(database, "b")).turn_id == turn_id
    await end(database, turn_id, TurnStatus.FAILED)
    async with database.read() as connection:
        assert await busy.open_turn(connection, SESSION) is None, "a message would join a turn that has ended"
    again = await accept(database, "b")
    assert (again.taken, again.starts_turn) == (False, True)
    assert turn_id != again.turn_id == again.run_turn_id
    assert await place(database, again.turn_id, of_all_turns=False) == ["b"]


async def test_a_turn_that_opens_takes_what_waits_for_others(database: Database) -> None:
    """Messages that were accepted and never signalled do not wait for ever."""
    await accept(database, "a")
    assert await place(database, "another") == ["a"]
    assert await waiting(database) == []


async def test_messages_move_to_the_next_turn(database: Database) -> None:
    turn_id = (await accept(database, "a")).turn_id
    await begin(database, turn_id)
    await accept(database, "b")
    async with database.write() as connection:
        await acceptance.move_waiting(connection, SESSION, turn_id, "next")
        assert await acceptance.next_waiting_turn(connection, SESSION) == "next"
    assert await place(database, turn_id, round_=9, of_all_turns=False) == []
    assert await place(database, "next") == ["b"]


async def test_a_race_of_messages_against_the_end(database: Database) -> None:
    """Each message is either seen by the transaction that would end the turn, or begins the next turn."""
    turn_id = (await accept(database, "first")).turn_id
    await begin(database, turn_id)

    async def end_if_nothing_waits() -> bool:
        async with database.write() as connection:
            await messages.lock_session(connection, SESSION)
            if await acceptance.any_waits_for(connection, SESSION, turn_id):
                return False
            now = utc_now()
            turn = NewTurn(turn_id, SESSION, USER, model="m", mode="fast", tier="standard", started_at=now)
            done = TurnStatus.COMPLETED
            progress = Progress(turn_id=turn_id, session_id=SESSION, status=done, started_at=now, ended_at=now)
            return await turns.end(connection, turn, progress)

    answers = await asyncio.gather(
        *(end_if_nothing_waits() if number == 5 else accept(database, f"m{number}", limit=0) for number in range(12))
    )
    accepted = [answer for answer in answers if isinstance(answer, acceptance.Accepted)]
    joined = [answer for answer in accepted if answer.turn_id == turn_id]
    assert answers[5] is (not joined)
    assert len({answer.turn_id for answer in accepted}) == 1


async def test_the_same_client_id_in_two_sessions_is_two_messages(database: Database) -> None:
    async with database.write() as connection:
        await sessions.create(connection, NewSession("second", USER))
    assert (await accept(database, "m")).waiting == 1
    assert (await accept(database, "m", session_id="second")).waiting == 1


async def test_any_text_can_be_stored(database: Database) -> None:
    await accept(database, "m", content=LOST, context={"url": "u", "content": LOST})
    await place(database)
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


async def waiting_long(database: Database, *, seconds: int = -1, limit: int = 10) -> list[str]:
    async with database.read() as connection:
        return await acceptance.sessions_waiting(connection, utc_now() - timedelta(seconds=seconds), limit)


async def test_sessions_whose_messages_wait_long(database: Database) -> None:
    """Not those that a turn has taken, nor young ones. Whether a turn runs is Temporal's to say."""
    await accept(database, "m1")
    await accept(database, "m2")
    assert await waiting_long(database) == [SESSION]
    assert await waiting_long(database, seconds=60) == []
    await begin(database, "t1")
    assert await waiting_long(database) == []
    await accept(database, "m3")
    assert await waiting_long(database) == [SESSION]


async def test_among_many_sessions_that_wait_each_has_its_chance(database: Database) -> None:
    async with database.write() as connection:
        for sub_id in ("sub-1", "sub-2"):
            await sessions.create(
                connection, NewSession(sub_id, USER, parent_session_id=SESSION, root_session_id=SESSION)
            )
    await accept(database, "m1", session_id="sub-1")
    await accept(database, "m2", session_id="sub-2")
    seen = set()
    for _ in range(200):  # both do not appear with a probability of 2^-199
        seen.update(await waiting_long(database, limit=1))
    assert seen == {"sub-1", "sub-2"}


async def test_a_waiting_message_keeps_its_choice(database: Database) -> None:
    await accept(database, "m1", choice={"mode": "extended_thinking", "tier": "advanced"})
    await accept(database, "m2")
    async with database.read() as connection:
        waiting = await acceptance.list_waiting(connection, SESSION)
    assert [row.choice for row in waiting] == [{"mode": "extended_thinking", "tier": "advanced"}, None]
