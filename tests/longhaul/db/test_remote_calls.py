"""Calls of tool workers: one token counts, one result counts, and nothing after the end."""

import asyncio
from datetime import timedelta

import pytest

from longhaul.contracts import Progress, ToolStatus, TurnRef, TurnStatus
from longhaul.db import remote_calls, sessions, turns
from longhaul.db.database import Database
from longhaul.db.models import utc_now
from longhaul.db.remote_calls import CallToken, GivenResult, NewRemoteCall, RemoteCall
from longhaul.errors import CallEndedError, NotFoundError, ResultGivenError, TokenReplacedError, TurnEndedError
from tests.longhaul.db.conftest import SESSION, USER

TURN = turns.NewTurn("turn", SESSION, USER, "m", "fast", "standard", utc_now())
REF = TurnRef(session_id=SESSION, turn_id="turn", user_id=USER, parent_turn_id="above")
CALL = remote_calls.id_of("turn", 1, "c")
FIRST, SECOND = CallToken(CALL, 1, "first"), CallToken(CALL, 2, "second")
DONE = GivenResult(ToolStatus.OK, "done\0", 7)
#: Attempts at each race.
RACES = 10


@pytest.fixture(autouse=True)
async def turn(database: Database) -> None:
    async with database.write() as connection:
        await turns.start(connection, TURN)


async def opened(database: Database, arguments: str = '{"metres": 3}') -> None:
    async with database.write() as connection:
        await remote_calls.open_call(connection, NewRemoteCall(CALL, REF, "c", "dig", arguments, None))


async def begun(database: Database, token: CallToken = FIRST) -> RemoteCall:
    async with database.write() as connection:
        return await remote_calls.begin(connection, token, "worker#key")


async def look(database: Database, token: CallToken) -> RemoteCall:
    async with database.read() as connection:
        return await remote_calls.of_token(connection, token)


async def give(database: Database, token: CallToken, result: GivenResult = DONE) -> None:
    async with database.write() as connection:
        await remote_calls.give(connection, token, result)


async def ended(database: Database) -> RemoteCall:
    async with database.write() as connection:
        return await remote_calls.end(connection, CALL)


async def test_a_result_is_taken_and_its_texts_are_removed(database: Database) -> None:
    await opened(database)
    await opened(database, "another attempt of the store changes nothing")
    row = await begun(database)
    assert (row.arguments, row.turn) == ('{"metres": 3}', REF)
    await give(database, FIRST)
    row = await ended(database)
    assert (row.status, row.output, row.duration_ms, row.worker) == ("ok", "done�", 7, "worker#key")
    async with database.write() as connection:
        await remote_calls.forget_texts(connection, CALL)
    row = await ended(database)
    assert (row.status, row.output, row.arguments, row.new_arguments) == ("ok", None, None, None)


async def test_a_result_counts_once(database: Database) -> None:
    await opened(database)
    await begun(database)
    await give(database, FIRST)
    await give(database, FIRST)
    for other in (DONE._replace(output="other"), DONE._replace(status=ToolStatus.ERROR)):
        with pytest.raises(ResultGivenError):
            await give(database, FIRST, other)
    with pytest.raises(ResultGivenError):
        await look(database, FIRST)
    assert (await ended(database)).output == "done�"


async def test_only_the_newest_token_counts(database: Database) -> None:
    await opened(database)
    await begun(database)
    await begun(database, SECOND)
    renewed = SECOND._replace(token_id="renewed")
    for token in (FIRST, renewed, SECOND._replace(attempt=3), FIRST._replace(token_id="second")):
        with pytest.raises(TokenReplacedError):
            await give(database, token)
        with pytest.raises(TokenReplacedError):
            await look(database, token)
    with pytest.raises(TokenReplacedError):
        await begun(database)
    await begun(database, renewed)
    with pytest.raises(TokenReplacedError):
        await give(database, SECOND)
    await give(database, renewed)


async def test_before_the_call_is_begun_no_token_counts(database: Database) -> None:
    with pytest.raises(NotFoundError):
        await give(database, FIRST)
    await opened(database)
    for token in (FIRST, CallToken(CALL, 0, "")):
        with pytest.raises(TokenReplacedError):
            await give(database, token)


async def refused_everywhere(database: Database) -> None:
    for step in (give(database, FIRST), look(database, FIRST), begun(database, SECOND)):
        with pytest.raises(CallEndedError):
            await step


async def test_nothing_counts_after_the_calls_end(database: Database) -> None:
    await opened(database)
    await begun(database)
    await ended(database)
    await refused_everywhere(database)


async def test_nothing_counts_after_a_stop(database: Database) -> None:
    await opened(database)
    await begun(database)
    async with database.write() as connection:
        await turns.mark_stopped(connection, SESSION, TURN.turn_id)
    await refused_everywhere(database)


async def test_nothing_counts_after_the_turns_end(database: Database) -> None:
    await opened(database)
    await begun(database)
    now = utc_now()
    progress = Progress(
        session_id=SESSION,
        turn_id="turn",
        status=TurnStatus.FAILED,
        started_at=now,
        ended_at=now + timedelta(seconds=1),
    )
    async with database.write() as connection:
        await turns.end(connection, TURN, progress)
    await refused_everywhere(database)
    later = NewRemoteCall(remote_calls.id_of("turn", 2, "c"), REF, "c", "dig", "{}", None)
    async with database.write() as connection:
        with pytest.raises(TurnEndedError):
            await remote_calls.open_call(connection, later)


async def test_a_deleted_session_takes_its_calls_with_it(database: Database) -> None:
    await opened(database)
    await begun(database)
    async with database.write() as connection:
        await sessions.delete_all(connection, [SESSION])
    for step in (give(database, FIRST), ended(database)):
        with pytest.raises(NotFoundError):
            await step


@pytest.mark.parametrize("race", range(RACES))
async def test_a_race_of_a_result_and_the_end(database: Database, race: int) -> None:
    """Whichever was first: what the turn takes is what its worker was told of."""
    await opened(database)
    await begun(database)
    steps = [give(database, FIRST), ended(database)]
    given, taken = await asyncio.gather(*(steps if race % 2 else reversed(steps)), return_exceptions=True)
    if not race % 2:
        given, taken = taken, given
    assert isinstance(taken, RemoteCall)
    assert taken.status == (None if isinstance(given, CallEndedError) else "ok")
