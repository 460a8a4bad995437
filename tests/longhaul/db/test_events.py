"""Events are stored with what happened, numbered in the order of commits, and told to those who wait for them."""

import asyncio
from collections.abc import Collection
from datetime import timedelta

import pytest
from sqlalchemy import update

from longhaul.contracts import ParkKind, Progress, Scope, TurnStatus
from longhaul.db import events, parked, sessions, turns, webhooks
from longhaul.db.database import Database
from longhaul.db.event_tables import EventRow, EventType
from longhaul.db.events import Event
from longhaul.db.models import utc_now
from longhaul.db.parked import NewParked
from longhaul.db.turns import NewTurn
from longhaul.db.webhooks import Webhook
from longhaul.errors import NotFoundError, TooManyError
from tests.longhaul.db.conftest import SESSION, USER

ALL = frozenset(EventType)


def new_webhook(id_: str = "w", types: frozenset[EventType] = ALL, user: str = USER) -> Webhook:
    return Webhook(id_, user, "https://x", types, "whsec_x", None, None, True, None, 0, utc_now(), utc_now())


def turn(id_: str, session: str = SESSION) -> NewTurn:
    return NewTurn(id_, session, USER, "m", "fast", "standard", utc_now())


async def end(database: Database, id_: str, status: TurnStatus = TurnStatus.COMPLETED, session: str = SESSION) -> bool:
    new, now = turn(id_, session), utc_now()
    progress = Progress(turn_id=id_, session_id=session, status=status, started_at=now, ended_at=now)
    async with database.write() as connection:
        return await turns.end(connection, new, progress)


async def happened(database: Database, **options: object) -> list[Event]:
    async with database.read() as connection:
        return await events.list_of_user(connection, USER, 100, **options)  # type: ignore[arg-type]


async def test_a_turn_that_ends_is_one_event(database: Database) -> None:
    assert await end(database, "t1", TurnStatus.FAILED)
    assert not await end(database, "t1"), "its end is stored already"
    [event] = await happened(database)
    assert (event.type, event.turn_id, event.position) == (EventType.TURN_ENDED, "t1", 1)
    assert event.data == {"session_id": SESSION, "parent_session_id": None, "turn_id": "t1", "status": "failed"}


async def test_a_sub_sessions_end_is_of_its_own_type(database: Database) -> None:
    async with database.write() as connection:
        below = sessions.NewSession("sub", USER, parent_session_id=SESSION, root_session_id=SESSION, scope=Scope())
        await sessions.create(connection, below)
    await end(database, "t1", session="sub")
    [event] = await happened(database)
    assert event.type is EventType.SUB_SESSION_ENDED
    assert event.data == {
        "sub_session_id": "sub",
        "parent_session_id": SESSION,
        "turn_id": "t1",
        "status": "completed",
    }


async def test_a_turn_that_was_lost_has_ended_too(database: Database) -> None:
    for id_ in ("lost", "next"):
        async with database.write() as connection:
            await turns.start(connection, turn(id_))
    [event] = await happened(database)
    assert (event.turn_id, event.data["status"]) == ("lost", "failed")


async def test_an_approval_is_wanted_once_and_not_where_it_is_given(database: Database) -> None:
    async with database.write() as connection:
        await turns.start(connection, turn("t1"))
    new = NewParked("p", SESSION, USER, "t1", 1, "call", "pay", ParkKind.APPROVAL, "{}", utc_now(), None)
    for one in (new, new, new._replace(id="c", tool_call_id="c", kind=ParkKind.CLIENT_TOOL)):
        async with database.write() as connection:
            await parked.park(connection, one)
    [event] = await happened(database)
    assert event.type is EventType.APPROVAL_WANTED
    assert (event.data["approval_id"], event.data["tool_name"], event.data["kind"]) == ("p", "pay", "approval")
    assert "arguments" not in event.data


async def test_what_is_rolled_back_did_not_happen(database: Database) -> None:
    told: list[str] = []
    database.announce_events = told.extend
    async with database.write() as connection:
        await webhooks.add(connection, new_webhook(), 0)
    now = utc_now()
    done = Progress(turn_id="t1", session_id=SESSION, status=TurnStatus.COMPLETED, started_at=now, ended_at=now)

    async def broken() -> None:
        async with database.write() as connection:
            assert await turns.end(connection, turn("t1"), done)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await broken()
    assert await happened(database) == []
    assert told == []


async def test_only_users_with_webhooks_are_announced(database: Database) -> None:
    told: list[Collection[str]] = []
    database.announce_events = lambda users: told.append(set(users))
    await end(database, "t1")
    async with database.write() as connection:
        webhook = await webhooks.add(connection, new_webhook(), 0)
    await end(database, "t2")
    assert told == [{USER}]
    async with database.write() as connection:
        await webhooks.change(connection, webhook, enabled=False)
    await end(database, "t3")
    assert told == [{USER}]
    assert [event.turn_id for event in await happened(database)] == ["t1", "t2", "t3"]


async def test_whoever_has_read_to_a_position_has_missed_nothing(database: Database) -> None:
    """Twenty turns end at once, while a reader asks again and again for what is behind the last thing that it saw."""
    seen: list[Event] = []

    async def read_all() -> None:
        while len(seen) < 20:
            seen.extend(await happened(database, behind=seen[-1].position if seen else 0))
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(read_all(), *(end(database, f"t{number}") for number in range(20)))
    assert [event.position for event in seen] == list(range(1, 21))
    assert {event.turn_id for event in seen} == {f"t{number}" for number in range(20)}


async def test_a_webhook_wants_what_happens_from_now_on(database: Database) -> None:
    await end(database, "before")
    types = frozenset({EventType.TURN_ENDED})
    async with database.write() as connection:
        webhook = await webhooks.add(connection, new_webhook(types=types), 0)
        others = await webhooks.add(connection, new_webhook("o", frozenset({EventType.BUDGET_REACHED})), 0)
    for id_ in ("first", "second"):
        await end(database, id_)
    async with database.read() as connection:
        event = await webhooks.next_event(connection, webhook)
        assert await webhooks.next_event(connection, others) is None
        assert await webhooks.count_waiting(connection, webhook) == 2
        assert await webhooks.waiting_of_users(connection, [USER, "nobody"]) == [("w", USER)]
        assert await webhooks.forgotten(connection, utc_now() - timedelta(minutes=1), 10) == []
        assert await webhooks.forgotten(connection, utc_now() + timedelta(minutes=1), 10) == [("w", USER)]
    assert event is not None
    assert event.turn_id == "first"
    async with database.write() as connection:
        await webhooks.advance(connection, "w", event.position)
        await webhooks.advance(connection, "w", event.position - 1)
        found = await webhooks.get(connection, USER, "w")
        following = await webhooks.next_event(connection, found)
    assert found.event_types == types
    assert following is not None
    assert following.turn_id == "second"


async def test_a_webhook_that_is_turned_on_again_is_not_told_of_the_time_between(database: Database) -> None:
    async with database.write() as connection:
        webhook = await webhooks.add(connection, new_webhook(), 0)
        off = await webhooks.change(connection, webhook, enabled=False)
    await end(database, "t1")
    async with database.write() as connection:
        on = await webhooks.change(connection, off, enabled=True)
        assert await webhooks.count_waiting(connection, on) == 0
        assert await webhooks.get(connection, USER, "w") == on


async def test_limits_and_owners(database: Database) -> None:
    async with database.write() as connection:
        webhook = await webhooks.add(connection, new_webhook(), 1)
        with pytest.raises(TooManyError, match="1 webhooks"):
            await webhooks.add(connection, new_webhook("second"), 1)
        with pytest.raises(NotFoundError):
            await webhooks.get(connection, "bob", "w")
        await webhooks.remove(connection, webhook)
        with pytest.raises(NotFoundError):
            await webhooks.change(connection, webhook, url="https://y")


async def test_a_repeated_transaction_stores_an_event_once(database: Database) -> None:
    """An attempt whose commit was not answered is made again. A defect there would keep its turn from its end."""
    for _ in range(2):
        async with database.write() as connection:
            await events.record(
                connection, EventType.BUDGET_REACHED, user_id=USER, session_id=SESSION, turn_id="t1", details={}
            )
    assert [event.type for event in await happened(database)] == [EventType.BUDGET_REACHED]


async def test_old_events_are_forgotten(database: Database) -> None:
    for id_ in ("old", "new"):
        await end(database, id_)
    async with database.write() as connection:
        aged = update(EventRow).where(EventRow.turn_id == "old")
        await connection.execute(aged.values(created_at=utc_now() - timedelta(days=31)))
        assert not await events.forget(connection, utc_now() - timedelta(days=30)), "no more are left"
    assert [event.turn_id for event in await happened(database)] == ["new"]
