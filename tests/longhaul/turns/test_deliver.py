"""What a sender is answered when parts fail after its message is on its way."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import update
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from longhaul.contracts import Progress, TurnStatus
from longhaul.db import acceptance, messages, sessions, turns
from longhaul.db.busy import OnBusy
from longhaul.db.database import Database
from longhaul.db.models import MessageRow, utc_now
from longhaul.errors import (
    MessageIdUsedError,
    SessionBusyError,
    TooManyTurnsError,
    TurnRunsError,
    UnavailableError,
    UsageLimitError,
)
from longhaul.settings import load_settings
from longhaul.turns.deliver import Delivery, IncomingMessage, MessageDelivery
from longhaul.turns.quota import LOST_AFTER_S
from longhaul.turns.status import TurnLookup
from longhaul.turns.stop import TurnStopper
from testkit.spending import spend, usage_limits
from tests.longhaul.turns.conftest import SESSION, USER

AWAY = RPCError("away", RPCStatusCode.UNAVAILABLE, b"")


class TemporalAwayAfterSignal:
    """Takes the signal, and answers nothing afterwards."""

    def __init__(self, *, started: bool) -> None:
        self.signals: list[str] = []
        self._started = started

    async def start_workflow(self, *_: Any, start_signal_args: list[Any], **__: Any) -> Any:
        self.signals += [signal.message_id for signal in start_signal_args]
        response = SimpleNamespace(started=self._started)
        return SimpleNamespace(id="turn:session", result_run_id="run", _start_workflow_response=response)

    def get_workflow_handle(self, *_: Any, **__: Any) -> Any:
        async def describe(**_: Any) -> None:
            raise AWAY

        return SimpleNamespace(describe=describe)


class NothingRuns(TemporalAwayAfterSignal):
    """Knows of no workflow."""

    def get_workflow_handle(self, *_: Any, **__: Any) -> Any:
        async def describe(**_: Any) -> None:
            raise RPCError("not found", RPCStatusCode.NOT_FOUND, b"")

        return SimpleNamespace(describe=describe)


async def deliver(database: Database, temporal: TemporalAwayAfterSignal, message: IncomingMessage) -> Delivery:
    client, settings = cast("Client", temporal), load_settings()
    delivery = MessageDelivery(settings, database, client, TurnLookup(database, client, 1.0))
    async with database.read() as connection:
        session = await sessions.get(connection, SESSION)
    return await delivery.deliver(USER, session, message)


async def run_turn(database: Database) -> None:
    async with database.write() as connection:
        await turns.start(connection, turns.NewTurn("t1", SESSION, USER, "m", "fast", "standard", utc_now()))


async def test_temporal_away_after_the_signal_is_no_error(database: Database) -> None:
    temporal = TemporalAwayAfterSignal(started=False)
    await run_turn(database)
    assert await deliver(database, temporal, IncomingMessage("m1", "hello")) == Delivery("t1", False, 1)
    assert temporal.signals == ["m1"]


async def test_the_database_away_after_the_signal_is_no_error(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeated POST looks at rows after its signal; the second look for the best known turn fails too."""
    temporal = TemporalAwayAfterSignal(started=True)
    message = IncomingMessage("m1", "hello")
    first = await deliver(database, temporal, message)

    async def away(*_: Any) -> None:
        raise UnavailableError("The database")

    monkeypatch.setattr(messages, "get", away)
    monkeypatch.setattr(turns, "newest", away)
    again = await deliver(database, temporal, message)
    assert (first.started, again.started) == (True, True)
    assert temporal.signals == ["m1", "m1"]


async def test_the_turn_that_took_it_cannot_be_read(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    temporal = TemporalAwayAfterSignal(started=True)
    message = IncomingMessage("m1", "hello")
    await deliver(database, temporal, message)
    async with database.write() as connection:
        await acceptance.place_waiting(connection, SESSION, turn_id="t1", round_=0, kind="message", of_all_turns=True)

    async def away(*_: Any) -> None:
        raise UnavailableError("The database")

    monkeypatch.setattr(turns, "get", away)
    assert (await deliver(database, temporal, message)).turn_id == "t1"


async def test_a_signal_that_fails_is_an_error(database: Database) -> None:
    temporal = TemporalAwayAfterSignal(started=True)

    async def away(*_: Any, **__: Any) -> None:
        raise AWAY

    temporal.start_workflow = away  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        await deliver(database, temporal, IncomingMessage("m1", "hello"))


@pytest.mark.parametrize("placed", [False, True])
async def test_an_id_names_one_message(database: Database, placed: bool) -> None:
    temporal = TemporalAwayAfterSignal(started=True)
    await deliver(database, temporal, IncomingMessage("m1", "delete nothing \x00"))
    if placed:
        async with database.write() as connection:
            await acceptance.place_waiting(
                connection, SESSION, turn_id="t1", round_=0, kind="message", of_all_turns=True
            )
    with pytest.raises(MessageIdUsedError, match="m1"):
        await deliver(database, temporal, IncomingMessage("m1", "delete everything"))
    assert temporal.signals == ["m1"]
    await deliver(database, temporal, IncomingMessage("m1", "delete nothing \x00"))


async def test_a_turn_that_took_the_message_before_its_signal_is_its_turn(database: Database) -> None:
    """Between a message's row and its signal, a turn may begin, take all that waits, and end."""
    temporal = TemporalAwayAfterSignal(started=True)
    start_workflow = temporal.start_workflow

    async def start_after_a_whole_turn(*arguments: Any, **options: Any) -> Any:
        async with database.write() as connection:
            await acceptance.place_waiting(
                connection, SESSION, turn_id="t1", round_=0, kind="message", of_all_turns=True
            )
        await run_turn(database)
        return await start_workflow(*arguments, **options)

    temporal.start_workflow = start_after_a_whole_turn  # type: ignore[method-assign]
    assert (await deliver(database, temporal, IncomingMessage("m1", "hello"))).turn_id == "t1"


class Runs:
    """A `TurnLookup` that knows which turns run."""

    def __init__(self, *turn_ids: str) -> None:
        self._turn_ids = turn_ids

    async def is_running(self, _: str, turn_id: str) -> bool:
        return turn_id in self._turn_ids


async def open_elsewhere(
    database: Database, turn_id: str, *, minutes: float, parent: str | None = None, root: str | None = None
) -> None:
    """A turn of another session of the same user, begun so long ago."""
    began = utc_now() - timedelta(minutes=minutes)
    session_id = f"of-{turn_id}"
    async with database.write() as connection:
        await sessions.create(
            connection, sessions.NewSession(session_id, USER, parent_session_id=parent, root_session_id=root)
        )
        await turns.start(connection, turns.NewTurn(turn_id, session_id, USER, "m", "fast", "standard", began))


async def deliver_within(database: Database, limit: int, *running: str, to: str = SESSION) -> Delivery:
    """Deliver a message that would begin a turn. For a sub-session, `limit` is that of its tree."""
    settings = load_settings(**{"max_running_turns" if to == SESSION else "max_running_sub_sessions": limit})
    temporal = cast("Client", TemporalAwayAfterSignal(started=True))
    delivery = MessageDelivery(settings, database, temporal, cast("TurnLookup", Runs(*running)))
    async with database.read() as connection:
        session = await sessions.get(connection, to)
    return await delivery.deliver(USER, session, IncomingMessage("m1", "hello"))


async def test_as_many_turns_as_the_limit_allows(database: Database) -> None:
    for turn_id, minutes in (("old", 60), ("older", 90)):
        await open_elsewhere(database, turn_id, minutes=minutes)
    with pytest.raises(TooManyTurnsError, match="turn older of session of-older") as refused:
        await deliver_within(database, 2, "old", "older")
    assert [one.turn_id for one in refused.value.running] == ["older", "old"]
    assert (await deliver_within(database, 3, "old", "older")).started


async def test_turns_whose_workflow_is_lost_do_not_count(database: Database) -> None:
    """Else one who has lost as many as the limit allows could never begin a turn again."""
    await open_elsewhere(database, "lost", minutes=60)
    await open_elsewhere(database, "runs", minutes=60)
    assert (await deliver_within(database, 2, "runs")).started


async def test_a_turn_that_is_about_to_start_counts(database: Database) -> None:
    """Its message was accepted by another post, which has not reached Temporal yet."""
    await open_elsewhere(database, "starting", minutes=0)
    with pytest.raises(TooManyTurnsError):
        await deliver_within(database, 1)


async def test_a_message_is_rejected_while_a_turn_is_about_to_start(database: Database) -> None:
    """The first message was accepted, and its signal is on its way: a double click starts no second one."""
    async with database.write() as connection:
        first = await acceptance.accept(
            connection, session_id=SESSION, user_id=USER, message_id="first", content="x", context=None, limit=0
        )
    rejected = IncomingMessage("second", "x", on_busy=OnBusy.REJECT)
    with pytest.raises(SessionBusyError):
        await deliver(database, NothingRuns(started=True), rejected)
    async with database.write() as connection:
        long_ago = utc_now() - timedelta(seconds=LOST_AFTER_S + 1)
        await connection.execute(update(MessageRow).where(MessageRow.id == first.row_id).values(created_at=long_ago))
    assert (await deliver(database, NothingRuns(started=True), rejected)).turn_id == first.turn_id


async def test_sub_sessions_and_the_same_session_do_not_count(database: Database) -> None:
    await open_elsewhere(database, "sub", minutes=60, parent=SESSION)
    assert (await deliver_within(database, 1, "sub")).started
    assert (await deliver_within(database, 1, "sub")).started, "the same message again is no turn more"


async def test_messages_to_sub_sessions_begin_no_more_turns_than_their_tree_may_have(database: Database) -> None:
    """Else one could wake any number of sub-sessions that have ended."""
    for turn_id, root in (("a", SESSION), ("b", SESSION), ("of another tree", "elsewhere")):
        await open_elsewhere(database, turn_id, minutes=60, parent=SESSION, root=root)
    async with database.write() as connection:
        await sessions.create(
            connection, sessions.NewSession("ended", USER, parent_session_id="of-a", root_session_id=SESSION)
        )
    with pytest.raises(TooManyTurnsError) as refused:
        await deliver_within(database, 2, "a", "b", to="ended")
    assert {one.turn_id for one in refused.value.running} == {"a", "b"}
    assert (await deliver_within(database, 2, "a", to="ended")).started, "the workflow of b is lost"


async def deliver_over_the_limit(
    database: Database, message: IncomingMessage, *, joins: bool, runs: bool = False
) -> Delivery:
    """Deliver a message of a user who has spent as much as the day's limit allows."""
    await spend(database, USER, 1_000)
    client, settings = cast("Client", TemporalAwayAfterSignal(started=not runs)), load_settings(daily_cost_limit=1_000)
    delivery = MessageDelivery(settings, database, client, TurnLookup(database, client, 1.0), usage_limits(database))
    async with database.read() as connection:
        session = await sessions.get(connection, SESSION)
    return await delivery.deliver(USER, session, message, joins=joins)


@pytest.mark.parametrize("joins", [False, True])
async def test_over_the_limit_of_costs_no_turn_begins(database: Database, joins: bool) -> None:
    """Also if the turn that the message was to join has ended meanwhile."""
    with pytest.raises(UsageLimitError, match="limit of this day"):
        await deliver_over_the_limit(database, IncomingMessage("m1", "hello"), joins=joins)
    async with database.read() as connection:
        assert await acceptance.list_waiting(connection, SESSION) == []


@pytest.mark.parametrize("joins", [False, True])
async def test_over_the_limit_of_costs_a_turn_that_runs_takes_messages(database: Database, joins: bool) -> None:
    await run_turn(database)
    delivery = await deliver_over_the_limit(database, IncomingMessage("m1", "hello"), joins=joins, runs=True)
    assert delivery == Delivery("t1", False, 1)


async def test_a_message_that_was_accepted_before_the_limit_is_no_new_one(database: Database) -> None:
    first = await deliver(database, TemporalAwayAfterSignal(started=True), IncomingMessage("m1", "hello"))
    again = await deliver_over_the_limit(database, IncomingMessage("m1", "hello"), joins=False)
    assert again.turn_id == first.turn_id


async def test_over_the_limit_of_costs_nothing_is_replaced(database: Database) -> None:
    await spend(database, USER, 1_000)
    client, settings = cast("Client", TemporalAwayAfterSignal(started=True)), load_settings(daily_cost_limit=1_000)
    delivery = MessageDelivery(settings, database, client, TurnLookup(database, client, 1.0), usage_limits(database))
    async with database.read() as connection:
        session = await sessions.get(connection, SESSION)
    with pytest.raises(UsageLimitError):
        await delivery.replace(
            USER, session, IncomingMessage("m2", "hello"), of="m1", stopper=cast("TurnStopper", None)
        )
    async with database.read() as connection:
        assert await acceptance.list_waiting(connection, SESSION) == []


async def failed_turn(database: Database) -> None:
    """The session's newest turn, t1, has failed."""
    await run_turn(database)
    now = utc_now()
    progress = Progress(turn_id="t1", session_id=SESSION, status=TurnStatus.FAILED, started_at=now, ended_at=now)
    async with database.write() as connection:
        await turns.end(connection, turns.NewTurn("t1", SESSION, USER, "m", "fast", "standard", now), progress)


async def retry_within(database: Database, limit: int, *running: str) -> Delivery:
    settings = load_settings(max_running_turns=limit)
    temporal = cast("Client", TemporalAwayAfterSignal(started=True))
    delivery = MessageDelivery(settings, database, temporal, cast("TurnLookup", Runs(*running)))
    async with database.read() as connection:
        session = await sessions.get(connection, SESSION)
    return await delivery.retry(USER, session, "t1")


async def test_a_retry_is_a_turn_for_the_limits(database: Database) -> None:
    await failed_turn(database)
    for turn_id in ("runs", "lost"):
        await open_elsewhere(database, turn_id, minutes=60)
    with pytest.raises(TooManyTurnsError):
        await retry_within(database, 1, "runs")
    started = await retry_within(database, 2, "runs")
    assert started.started, "a lost turn does not count"
    assert (await retry_within(database, 0)).turn_id == started.turn_id


async def test_a_message_that_waits_comes_before_a_retry(database: Database) -> None:
    await failed_turn(database)
    await deliver(database, TemporalAwayAfterSignal(started=True), IncomingMessage("m1", "hello"))
    with pytest.raises(TurnRunsError):
        await retry_within(database, 0)
