"""Messages that no turn takes are delivered again, and failures of the look are harmless."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from sqlalchemy import select, update
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.testing import ActivityEnvironment

from activities import redelivery
from activities.redelivery import RedeliveryActivities
from longhaul.contracts import Empty, ParkKind, Redelivered
from longhaul.db import acceptance, kept_answers, parked, sessions, turns
from longhaul.db.database import Database
from longhaul.db.models import KeptAnswerRow, MessageRow, ParkedCallRow, ParkedStatus, utc_now
from longhaul.db.parked import Answer, NewParked, ParkedRow
from longhaul.db.sessions import NewSession, Session
from longhaul.errors import UnavailableError
from longhaul.turns.answers import CallAnswers
from longhaul.turns.deliver import IncomingMessage, MessageDelivery
from longhaul.turns.status import TurnLookup
from longhaul.webhooks.wake import WebhookAlarm
from tests.activities.conftest import SETTINGS, TURN

CHOSEN = IncomingMessage("", "", mode="extended_thinking", tier="advanced", model="gpt-5", effort="low")
AFTER = timedelta(seconds=60)
Delivered = list[tuple[str, IncomingMessage]]


async def accept(database: Database, message_id: str, session_id: str = TURN.session_id, *, old: bool = True) -> None:
    """A message whose signal never reached Temporal."""
    async with database.write() as connection:
        accepted = await acceptance.accept(
            connection,
            session_id=session_id,
            user_id=TURN.user_id,
            message_id=message_id,
            content=f"text of {message_id}",
            context={"page": "p"},
            choice=CHOSEN.choice,
            limit=0,
        )
        if old:
            row = update(MessageRow).where(MessageRow.id == accepted.row_id)
            await connection.execute(row.values(created_at=utc_now() - AFTER - timedelta(seconds=1)))


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The sessions whose turn Temporal says it runs."""
    found: set[str] = set()

    async def is_running(_: TurnLookup, session_id: str) -> Any:
        return object() if session_id in found else None

    monkeypatch.setattr(TurnLookup, "running", is_running)
    return found


@pytest.fixture
def delivered(monkeypatch: pytest.MonkeyPatch) -> Delivered:
    """What was delivered."""
    found: Delivered = []

    async def deliver(_: MessageDelivery, user_id: str, session: Session, message: IncomingMessage) -> None:
        assert user_id == TURN.user_id
        found.append((session.id, message))

    monkeypatch.setattr(MessageDelivery, "deliver", deliver)
    return found


async def redeliver(database: Database, after: float = AFTER.total_seconds()) -> int:
    settings = SETTINGS.model_copy(update={"redeliver_after": after})
    client = cast("Client", None)
    activities = RedeliveryActivities(database, client, WebhookAlarm(database, client, settings), settings)
    redelivered: Redelivered = await ActivityEnvironment().run(activities.redeliver_forgotten, Empty())
    return redelivered.messages


async def test_old_messages_only_with_their_page_and_choice(
    database: Database, running: set[str], delivered: Delivered
) -> None:
    await accept(database, "old")
    await accept(database, "young", old=False)
    assert not running
    assert await redeliver(database) == 1
    assert delivered == [(TURN.session_id, replace(CHOSEN, id="old", text="text of old", context={"page": "p"}))]
    assert await redeliver(database) == 1  # nothing has taken it; delivering it again is harmless


async def test_not_where_temporal_runs_a_turn(database: Database, running: set[str], delivered: Delivered) -> None:
    await accept(database, "m1")
    running.add(TURN.session_id)
    assert await redeliver(database) == 0
    assert not delivered


async def test_zero_turns_it_off(database: Database, running: set[str], delivered: Delivered) -> None:
    await accept(database, "m1")
    assert await redeliver(database, after=0) == 0
    assert not running
    assert not delivered


async def test_where_the_workflow_of_an_unfinished_turn_is_lost(
    database: Database, running: set[str], delivered: Delivered
) -> None:
    """By its row the turn runs. Temporal says that it does not."""
    async with database.write() as connection:
        await turns.start(
            connection, turns.NewTurn("lost", TURN.session_id, TURN.user_id, "m", "fast", "standard", utc_now())
        )
    await accept(database, "m1")
    assert not running
    assert await redeliver(database) == 1
    assert [message.id for _, message in delivered] == ["m1"]


async def test_not_in_a_sub_session_that_its_parent_may_be_about_to_start(
    database: Database, running: set[str], delivered: Delivered
) -> None:
    async with database.write() as connection:
        await sessions.create(connection, NewSession("sub", TURN.user_id, parent_session_id=TURN.session_id))
    await accept(database, "m1", "sub")
    running.add(TURN.session_id)
    assert await redeliver(database) == 0
    running.clear()
    assert await redeliver(database) == 1
    assert [session for session, _ in delivered] == ["sub"]


async def test_bounded(
    database: Database, running: set[str], delivered: Delivered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redelivery, "MAX_SESSIONS", 4)
    for number in range(5):
        async with database.write() as connection:
            await sessions.create(connection, NewSession(f"s{number}", TURN.user_id))
        await accept(database, f"m{number}", f"s{number}")
    assert not running
    assert await redeliver(database) == 4
    assert len({session for session, _ in delivered}) == 4


async def test_old_answers_to_repeated_requests_are_forgotten(database: Database) -> None:
    for key in ("old", "new"):
        await kept_answers.claim(database, TURN.user_id, key, "request")
    async with database.write() as connection:
        aged = update(KeptAnswerRow).where(KeptAnswerRow.key == "old")
        await connection.execute(aged.values(created_at=utc_now() - kept_answers.KEPT_FOR - timedelta(seconds=1)))
    await redeliver(database)
    async with database.read() as connection:
        assert list(await connection.scalars(select(KeptAnswerRow.key))) == ["new"]


async def test_temporal_away_is_benign(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: TurnLookup, session_id: str) -> None:
        raise UnavailableError(f"Temporal ({session_id})")

    monkeypatch.setattr(TurnLookup, "running", away)
    await accept(database, "m1")
    with pytest.raises(ApplicationError) as failure:
        await redeliver(database)
    assert failure.value.category is ApplicationErrorCategory.BENIGN
    assert not failure.value.non_retryable


async def test_an_answer_that_its_turn_has_not_heard_of(
    database: Database, running: set[str], delivered: Delivered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old ones only, and not those that were taken."""
    told: list[str] = []

    async def tell(_: CallAnswers, row: ParkedRow) -> None:
        told.append(row.tool_call_id)

    monkeypatch.setattr(CallAnswers, "tell", tell)
    turn = turns.NewTurn(TURN.turn_id, TURN.session_id, TURN.user_id, "m", "fast", "standard", utc_now())
    async with database.write() as connection:
        await turns.start(connection, turn)
        for call in ("old", "fresh", "taken", "waiting"):
            kind, now = ParkKind.APPROVAL, utc_now()
            new = NewParked(call, TURN.session_id, TURN.user_id, TURN.turn_id, 1, call, "pay", kind, "{}", now, None)
            await parked.park(connection, new)
        for call in ("old", "fresh", "taken"):
            await parked.answer(connection, call, TURN.user_id, Answer(ParkedStatus.ALLOWED))
        await parked.settle(connection, "taken", None)
        older = update(ParkedCallRow).where(ParkedCallRow.id.in_(["old", "taken"]))
        await connection.execute(older.values(answered_at=utc_now() - AFTER - timedelta(seconds=1)))
    await redeliver(database)
    assert told == ["old"]
