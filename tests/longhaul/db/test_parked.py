"""Calls that wait: exactly one of an answer, a Stop, the end of the time and a message counts; and only the owner's."""

import asyncio
import itertools
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

from longhaul.contracts import ParkKind, Progress, TurnStatus
from longhaul.db import parked, sessions, turns
from longhaul.db.database import Database
from longhaul.db.models import ParkedStatus, utc_now
from longhaul.db.parked import Answer, NewParked, ParkedRow
from longhaul.errors import AnsweredError, NotFoundError, TurnEndedError
from tests.longhaul.db.conftest import SESSION, USER

TURN = turns.NewTurn("turn", SESSION, USER, "m", "fast", "standard", utc_now())
ALLOWED, DENIED, WAITING = ParkedStatus.ALLOWED, ParkedStatus.DENIED, ParkedStatus.WAITING
ANSWERED = ParkedStatus.ANSWERED
EXPIRED, CANCELLED, SKIPPED = ParkedStatus.EXPIRED, ParkedStatus.CANCELLED, ParkedStatus.SKIPPED
ALLOW, DENY = Answer(ALLOWED), Answer(DENIED, "not now")
#: Attempts at each race.
RACES = 10
CALLS = itertools.count()


@pytest.fixture(autouse=True)
async def turn(database: Database) -> None:
    async with database.write() as connection:
        await turns.start(connection, TURN)


def new(
    call: str, *, tool: str = "write_file", kind: ParkKind = ParkKind.APPROVAL, session: str = SESSION
) -> NewParked:
    approval_id, now = parked.id_of("turn", 1, call), utc_now()
    expires_at = now + timedelta(days=1)
    return NewParked(approval_id, session, USER, "turn", 1, call, tool, kind, '{"path": "a\\u0000b"}', now, expires_at)


async def park(database: Database, call: str, **options: Any) -> ParkedRow:
    async with database.write() as connection:
        return await parked.park(connection, new(call, **options))


async def answer(database: Database, row: ParkedRow, given: Answer, user: str = USER) -> ParkedRow:
    async with database.write() as connection:
        return await parked.answer(connection, row.id, user, given)


async def settle(database: Database, row: ParkedRow, give_up: ParkedStatus | None = None) -> ParkedRow:
    async with database.write() as connection:
        return await parked.settle(connection, row.id, give_up)


async def stop(database: Database) -> None:
    async with database.write() as connection:
        await turns.mark_stopped(connection, SESSION, TURN.turn_id)


async def close(database: Database) -> None:
    """As the turn does it which was stopped."""
    ended = Progress(
        turn_id="turn", session_id=SESSION, status=TurnStatus.CANCELLED, started_at=utc_now(), ended_at=utc_now()
    )
    async with database.write() as connection:
        await parked.cancel_of_turn(connection, TURN.turn_id)
        await turns.end(connection, TURN, ended)


async def now(database: Database, row: ParkedRow) -> ParkedStatus:
    async with database.read() as connection:
        return (await parked.of_user(connection, row.id, USER)).status


async def turn_status(database: Database) -> TurnStatus:
    async with database.read() as connection:
        found = await turns.get(connection, SESSION, TURN.turn_id)
    assert found is not None
    return found.status


async def waiting(database: Database, user: str = USER, **options: Any) -> list[str]:
    async with database.read() as connection:
        return [row.tool_call_id for row in await parked.waiting_of_user(connection, user, 50, **options)]


async def test_a_call_is_asked_once_and_answered_once(database: Database) -> None:
    row = await park(database, "a")
    assert await park(database, "a") == row
    assert (row.status, await turn_status(database)) == (WAITING, TurnStatus.WAITING_FOR_APPROVAL)
    assert await waiting(database) == ["a"]
    answered = await answer(database, row, DENY)
    assert (answered.status, answered.answer) == (DENIED, "not now")
    for again in (DENY, ALLOW):
        with pytest.raises(AnsweredError):
            await answer(database, row, again)
    assert await waiting(database) == []
    taken = await settle(database, row, EXPIRED)
    assert (taken.status, taken.settled_at is not None) == (DENIED, True)
    assert await turn_status(database) is TurnStatus.RUNNING


async def test_the_turn_waits_until_its_last_call_is_answered(database: Database) -> None:
    first, second = await park(database, "a"), await park(database, "b")
    await answer(database, first, ALLOW)
    await settle(database, first)
    assert await turn_status(database) is TurnStatus.WAITING_FOR_APPROVAL
    assert (await settle(database, second)).status is WAITING
    assert (await settle(database, second, SKIPPED)).status is SKIPPED
    assert await turn_status(database) is TurnStatus.RUNNING


async def test_a_clients_result_counts_once(database: Database) -> None:
    """The same result again is no error, because its sender may not have been told; another one is."""
    row = await park(database, "a", kind=ParkKind.CLIENT_TOOL)
    other = await park(database, "b", kind=ParkKind.CLIENT_TOOL)
    given = Answer(ANSWERED, "sunny \x00")
    with pytest.raises(NotFoundError):
        await answer(database, row, given, user="somebody else")
    first = await answer(database, row, given)
    assert (first.status, await answer(database, row, given)) == (ANSWERED, first)
    for another in (Answer(ANSWERED, "rain"), Answer(ANSWERED, "sunny \x00", is_error=True), Answer(SKIPPED)):
        with pytest.raises(AnsweredError):
            await answer(database, row, another)
    await settle(database, row)
    assert (await answer(database, row, given)).answer == "sunny \ufffd"
    async with database.read() as connection:
        assert [one.id for one in await parked.client_calls_waiting(connection, SESSION)] == [other.id]
    await stop(database)
    with pytest.raises(AnsweredError):
        await answer(database, other, given)


async def test_a_skipped_call_is_to_be_settled(database: Database) -> None:
    """The client said so, not the turn: the redelivery tells the turn, should the signal be lost."""
    row = await park(database, "a", kind=ParkKind.CLIENT_TOOL)
    await answer(database, row, Answer(SKIPPED))
    async with database.read() as connection:
        assert [one.id for one in await parked.not_settled(connection, utc_now(), 10)] == [row.id]
    assert (await settle(database, row)).status is SKIPPED


async def test_only_the_owner_sees_and_answers(database: Database) -> None:
    row = await park(database, "a")
    with pytest.raises(NotFoundError):
        await answer(database, row, ALLOW, user="somebody else")
    assert await waiting(database, "somebody else") == []
    assert await waiting(database, session_id="another") == []
    assert await now(database, row) is WAITING


async def test_allowed_for_the_session(database: Database) -> None:
    """It holds for this tool in this session, and for nothing else."""
    async with database.write() as connection:
        await sessions.create(connection, sessions.NewSession("other", USER))
    await answer(database, await park(database, "a"), Answer(ALLOWED))
    assert (await park(database, "b")).status is WAITING, "allowed once is not allowed for the session"
    await answer(database, await park(database, "c"), Answer(ALLOWED, for_session=True))
    allowed = await park(database, "d")
    assert (allowed.status, allowed.settled_at is not None) == (ALLOWED, True)
    assert (await park(database, "e", tool="write_files")).status is WAITING
    assert (await park(database, "f", session="other")).status is WAITING
    assert (await park(database, "g", kind=ParkKind.QUESTION)).status is WAITING


async def test_nothing_waits_in_a_turn_that_has_ended(database: Database) -> None:
    row, answered = await park(database, "a"), await park(database, "b")
    await answer(database, answered, ALLOW)
    await close(database)
    assert (await now(database, row), await now(database, answered)) == (CANCELLED, ALLOWED)
    with pytest.raises(AnsweredError):
        await answer(database, row, ALLOW)
    with pytest.raises(TurnEndedError):
        await park(database, "late")
    assert await waiting(database) == []


async def test_after_stop_nothing_is_allowed(database: Database) -> None:
    """Also before the turn has closed."""
    row = await park(database, "a")
    await stop(database)
    with pytest.raises(AnsweredError):
        await answer(database, row, ALLOW)
    assert await now(database, row) is WAITING


async def test_answers_that_the_turn_has_not_taken(database: Database) -> None:
    row = await park(database, "a")
    await answer(database, row, ALLOW)
    async with database.read() as connection:
        assert await parked.not_settled(connection, utc_now() - timedelta(minutes=1), 10) == []
        assert [one.id for one in await parked.not_settled(connection, utc_now(), 10)] == [row.id]
    await settle(database, row)
    async with database.read() as connection:
        assert await parked.not_settled(connection, utc_now(), 10) == []


async def test_a_deleted_session_leaves_no_call(database: Database) -> None:
    row = await park(database, "a")
    async with database.write() as connection:
        await sessions.delete_all(connection, [SESSION])
    with pytest.raises(NotFoundError):
        await settle(database, row)
    with pytest.raises(NotFoundError):
        await park(database, "b")


async def won(work: Coroutine[Any, Any, object]) -> bool:
    """Whether an answer was taken."""
    try:
        await work
    except AnsweredError:
        return False
    return True


@pytest.mark.parametrize("others", [[ALLOW, DENY], [ALLOW] * 8])
async def test_a_race_of_answers(database: Database, others: list[Answer]) -> None:
    for _ in range(RACES):
        row = await park(database, str(next(CALLS)))
        results = await asyncio.gather(*(won(answer(database, row, given)) for given in others))
        assert results.count(True) == 1
        assert await now(database, row) is others[results.index(True)].status


@pytest.mark.parametrize("give_up", [EXPIRED, SKIPPED])
async def test_a_race_of_an_answer_and_the_end_of_the_wait(database: Database, give_up: ParkedStatus) -> None:
    """Whoever is told of success is obeyed: the turn takes the answer if and only if it was accepted."""
    for number in range(RACES):
        row = await park(database, str(next(CALLS)))
        both = [won(answer(database, row, ALLOW)), settle(database, row, give_up)]
        results = await asyncio.gather(*both[:: 1 if number % 2 else -1])
        accepted, taken = results[:: 1 if number % 2 else -1]
        assert isinstance(taken, ParkedRow)
        assert taken.status is (ALLOWED if accepted else give_up)
        assert await now(database, row) is taken.status


async def test_a_race_of_an_answer_and_stop(database: Database) -> None:
    """Once Stop is marked no answer is accepted, and the end of the turn leaves the accepted ones as they are."""
    rows = [await park(database, str(next(CALLS))) for _ in range(RACES)]
    answers = [won(answer(database, row, ALLOW)) for row in rows]
    work: list[Coroutine[Any, Any, object]] = [*answers[: RACES // 2], stop(database), *answers[RACES // 2 :]]
    results = await asyncio.gather(*work)
    accepted = [one for one in results if one is not None]
    late = await park(database, "asked after Stop")
    assert not await won(answer(database, late, ALLOW))
    await close(database)
    assert [await now(database, row) for row in rows] == [ALLOWED if one else CANCELLED for one in accepted]
    assert await now(database, late) is CANCELLED
