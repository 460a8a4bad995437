"""What becomes of a message while a turn runs: which turn it belongs to, by rows alone."""

import asyncio
from typing import Any

import pytest

from longhaul.contracts import Progress, TurnStatus
from longhaul.db import acceptance, conversation, edits, messages, sessions, turns
from longhaul.db.busy import OnBusy
from longhaul.db.database import Database
from longhaul.db.messages import NewMessage
from longhaul.db.models import utc_now
from longhaul.db.turns import NewTurn
from longhaul.errors import InboxFullError, SessionBusyError
from tests.longhaul.db.conftest import SESSION, USER
from tests.longhaul.db.test_messages import accept, begin, end, place, stored, waiting

JOIN, QUEUE, INTERRUPT, REJECT, ROLLBACK = OnBusy


async def busy(database: Database, message_id: str, on_busy: OnBusy, **more: Any) -> acceptance.Accepted:
    return await accept(database, message_id, on_busy=on_busy, **more)


async def next_turn(database: Database) -> str:
    async with database.read() as connection:
        return await acceptance.next_waiting_turn(connection, SESSION)


async def running(database: Database) -> str:
    """A turn that has begun with the message "first"."""
    turn_id = (await accept(database, "first")).turn_id
    await begin(database, turn_id)
    return turn_id


@pytest.mark.parametrize("on_busy", list(OnBusy))
async def test_an_idle_session_begins_a_turn(database: Database, on_busy: OnBusy) -> None:
    accepted = await busy(database, "m", on_busy)
    assert (accepted.starts_turn, accepted.queued, accepted.stops) == (True, False, "")
    assert await place(database, accepted.turn_id) == ["m"]


async def test_each_queued_message_has_a_turn_of_its_own(database: Database) -> None:
    turn_id = await running(database)
    queued = [await busy(database, name, QUEUE) for name in ("a", "b")]
    assert len({turn_id, *(one.turn_id for one in queued)}) == 3
    assert all(one.starts_turn and one.queued and one.run_turn_id == one.turn_id for one in queued)
    async with database.write() as connection:
        assert not await acceptance.any_waits_for(connection, SESSION, turn_id), "the turn may end"
    assert await place(database, turn_id, round_=1, of_all_turns=False) == []
    again = await busy(database, "a", QUEUE)
    assert (again.turn_id, again.queued) == (queued[0].turn_id, True)
    joined = await busy(database, "c", JOIN)
    assert joined.turn_id == turn_id
    assert await place(database, turn_id, round_=1, of_all_turns=False, kind="follow_up") == ["c"]
    await end(database, turn_id)
    assert await next_turn(database) == queued[0].turn_id
    assert await place(database, queued[1].turn_id) == [], "another turn has to begin before it"
    await begin(database, queued[0].turn_id)
    await end(database, queued[0].turn_id)
    assert await place(database, queued[1].turn_id) == ["b"]
    assert [row.client_message_id for row in await stored(database)] == ["first", "c", "a", "b"]


async def test_messages_between_two_turns(database: Database) -> None:
    """The running turn has ended and the next one has not begun: it counts as running."""
    turn_id = await running(database)
    queued = await busy(database, "queued", QUEUE)
    await end(database, turn_id)
    with pytest.raises(SessionBusyError, match=queued.turn_id):
        await busy(database, "rejected", REJECT)
    joins = [await busy(database, on_busy, on_busy) for on_busy in (JOIN, INTERRUPT)]
    assert {one.turn_id for one in joins} == {queued.turn_id}
    assert not any(one.stops or one.starts_turn for one in joins)
    last = await busy(database, "last", QUEUE)
    assert last.turn_id != queued.turn_id
    assert await place(database, queued.turn_id) == ["queued", JOIN, INTERRUPT]


async def test_a_queue_that_waits_for_a_turn_without_a_run(database: Database) -> None:
    """The first message was accepted, and its signal has not reached Temporal: its turn begins first all the same."""
    first = await accept(database, "first")
    queued = await busy(database, "queued", QUEUE)
    assert await place(database, queued.turn_id) == []
    assert await next_turn(database) == first.turn_id
    assert await place(database, first.turn_id) == ["first"]


async def test_what_waits_for_a_lost_turn_does_not_hold_the_queue_up(database: Database) -> None:
    turn_id = await running(database)
    await accept(database, "follow-up")
    queued = await busy(database, "queued", QUEUE)
    await end(database, turn_id, TurnStatus.FAILED)
    assert await place(database, queued.turn_id) == ["follow-up", "queued"]


@pytest.mark.parametrize("on_busy", [INTERRUPT, ROLLBACK])
async def test_a_turn_whose_stop_was_cut_off_is_stopped_by_the_next_message(
    database: Database, on_busy: OnBusy
) -> None:
    """The process that marked the turn as stopped died before it asked Temporal, so the turn runs on."""
    turn_id = await running(database)
    assert (await busy(database, "cut off", INTERRUPT)).stops == turn_id
    assert (await busy(database, "again", on_busy)).stops == turn_id
    await end(database, turn_id, TurnStatus.CANCELLED)
    assert (await busy(database, "later", INTERRUPT)).stops == ""


async def test_the_queue_has_a_limit(database: Database) -> None:
    await running(database)
    for number in range(2):
        await busy(database, f"q{number}", QUEUE, limit=2)
    with pytest.raises(InboxFullError):
        await busy(database, "one too many", QUEUE, limit=2)
    assert (await busy(database, "joins", JOIN, limit=2)).waiting == 1


@pytest.mark.parametrize("on_busy", [INTERRUPT, ROLLBACK])
async def test_a_message_takes_the_place_of_the_turn(database: Database, on_busy: OnBusy) -> None:
    turn_id = await running(database)
    queued = await busy(database, "queued", QUEUE)
    await accept(database, "waits")
    accepted = await busy(database, "now", on_busy)
    assert (accepted.stops, accepted.starts_turn, accepted.queued) == (turn_id, True, False)
    async with database.write() as connection:
        assert not await acceptance.can_end(connection, SESSION, turn_id), "a final answer cannot end it any more"
    again = await busy(database, "now", on_busy)
    assert (again.turn_id, again.stops) == (accepted.turn_id, turn_id), "a sender that failed tries again"
    later = await busy(database, "later", JOIN)
    assert later.turn_id == accepted.turn_id
    assert await place(database, turn_id, round_=1, of_all_turns=False) == ["waits"], "it is filed in the stopped turn"
    await end(database, turn_id, TurnStatus.CANCELLED)
    assert (await busy(database, "now", on_busy)).stops == "", "it has ended"
    assert await next_turn(database) == accepted.turn_id
    assert await place(database, accepted.turn_id) == ["now", "later"]
    await begin(database, accepted.turn_id)
    await end(database, accepted.turn_id)
    assert await place(database, queued.turn_id) == ["queued"]


async def roll_back(database: Database, by_turn: str) -> None:
    """What a turn does as it opens."""
    async with database.write() as connection:
        session = await sessions.get(connection, SESSION)
        assert session.rolled_back_turn_id is not None
        await edits.roll_back(connection, SESSION, session.rolled_back_turn_id, by_turn)


async def test_a_rolled_back_turn_leaves_the_conversation(database: Database) -> None:
    before = await running(database)
    await end(database, before)
    turn_id = (await accept(database, "second")).turn_id
    await begin(database, turn_id)
    async with database.write() as connection:
        summary = NewMessage("s", "system", "a summary", kind="summary", turn_id=turn_id, context={"until": 1})
        await messages.append(
            connection, SESSION, [NewMessage("answer", "assistant", "half", turn_id=turn_id), summary]
        )
        await sessions.note_summary(connection, SESSION, "s", 1)
    accepted = await busy(database, "instead", ROLLBACK)
    await end(database, turn_id, TurnStatus.CANCELLED)
    await place(database, accepted.turn_id)
    await roll_back(database, accepted.turn_id)
    rows = await stored(database)
    assert [(row.client_message_id, row.sequence) for row in rows] == [("first", 0), ("instead", 4)]
    async with database.read() as connection:
        session = await sessions.get(connection, SESSION)
        seen = await conversation.for_model(connection, SESSION)
        of_turn = await conversation.rows_of_turn(connection, turn_id)
    assert (session.rolled_back_turn_id, session.summary_id) == (None, None), "the summary told of what was taken out"
    assert [row.content for row in seen] == ["hello", "hello"]
    assert {row.replaced_by for row in of_turn} == {accepted.turn_id}, "kept, and nothing is renumbered"


async def test_a_turn_that_is_being_stopped_can_be_rolled_back(database: Database) -> None:
    turn_id = await running(database)
    await busy(database, "interrupts", INTERRUPT)
    async with database.read() as connection:
        assert (await sessions.get(connection, SESSION)).rolled_back_turn_id is None
    rolled = await busy(database, "instead", ROLLBACK)
    await end(database, turn_id, TurnStatus.CANCELLED)
    assert await place(database, rolled.turn_id) == ["instead", "interrupts"], "the turn's first message is the visible"
    shown = [row.client_message_id for row in await stored(database)]
    assert shown == ["first", "instead"], "the turn that was about to begin was taken back, not the one before it"


async def test_a_message_that_no_turn_has_taken_is_rolled_back(database: Database) -> None:
    first = await accept(database, "first")
    accepted = await busy(database, "instead", ROLLBACK)
    assert (accepted.turn_id, accepted.stops) == (first.turn_id, "")
    assert await place(database, first.turn_id) == ["instead", "first"]
    assert [(row.client_message_id, row.sequence) for row in await stored(database)] == [("instead", 1)]
    assert await waiting(database) == []


async def test_all_kinds_race_the_end_of_a_turn(database: Database) -> None:
    """Whatever the order: nothing is lost, and each message is where its `on_busy` says."""
    kinds = [JOIN, QUEUE, INTERRUPT, ROLLBACK, QUEUE, JOIN] * 4
    turn_id = await running(database)

    async def end_if_allowed() -> None:
        async with database.write() as connection:
            await messages.lock_session(connection, SESSION)
            if await acceptance.can_end(connection, SESSION, turn_id):
                now = utc_now()
                turn = NewTurn(turn_id, SESSION, USER, model="m", mode="fast", tier="standard", started_at=now)
                done = TurnStatus.COMPLETED
                progress = Progress(turn_id=turn_id, session_id=SESSION, status=done, started_at=now, ended_at=now)
                await turns.end(connection, turn, progress)

    ending = asyncio.create_task(end_if_allowed())
    accepted = await asyncio.gather(*(busy(database, f"m{n}", kind, limit=0) for n, kind in enumerate(kinds)))
    await ending
    told = {f"m{number}": one for number, one in enumerate(accepted)}
    joined = await place(database, turn_id, round_=1, of_all_turns=False)
    assert set(joined) == {name for name, one in told.items() if one.turn_id == turn_id}
    await end(database, turn_id, TurnStatus.CANCELLED)
    took: dict[str, str] = {}
    while turn := await next_turn(database):
        await begin(database, turn)
        took |= dict.fromkeys([row.client_message_id or "" for row in await rows_of(database, turn)], turn)
        await end(database, turn)
    assert took == {name: one.turn_id for name, one in told.items() if one.turn_id != turn_id}
    assert {kinds[int(name[1:])] for name in joined} <= {JOIN}
    queued = [one.turn_id for one in accepted if one.queued]
    assert len(set(queued)) == len(queued)
    assert await waiting(database) == []


async def rows_of(database: Database, turn_id: str) -> list[messages.StoredMessage]:
    async with database.read() as connection:
        return await conversation.rows_of_turn(connection, turn_id)
