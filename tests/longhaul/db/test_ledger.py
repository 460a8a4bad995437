"""Reservations: a budget holds to within one call, however many calls run at once, and none is held for ever."""

import asyncio
import itertools
import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from longhaul.contracts import Budget, Scope, TurnStatus, Usage
from longhaul.db import ledger, sessions
from longhaul.db.database import Database
from longhaul.db.ledger import PaidCall, Refusal, Reservation
from longhaul.db.models import LedgerRow, TurnRow, utc_now
from tests.longhaul.db.conftest import SESSION, USER

PROMPT = Usage(prompt_tokens=2, cost_microdollars=2)


def scope_of(most: int, *below: str) -> Scope:
    line = (SESSION, *below)
    return Scope(
        depth=len(below),
        ancestors=line[:-1],
        root_session_id=SESSION if below else "",
        budgets=(Budget(session_id=SESSION, max_cost_microdollars=most),),
    )


def call_of(session: str, scope: Scope, attempt: int = 1, round_: int = 1, kind: str = "turn") -> PaidCall:
    entry = f"{session}:{round_}:{attempt}:{kind}"
    return PaidCall(entry, USER, session, scope.path(session), f"turn of {session}", round_, attempt, "m", kind)


async def start(database: Database, *names: str) -> None:
    """Sessions, each with a turn that runs."""
    turn = {"user_id": USER, "model": "m", "status": TurnStatus.RUNNING, "started_at": utc_now()}
    async with database.write() as connection:
        for name in names:
            await sessions.create(connection, sessions.NewSession(name, USER))
            await connection.execute(insert(TurnRow), {**turn, "turn_id": f"turn of {name}", "session_id": name})


async def reserve(
    database: Database, call: PaidCall, scope: Scope, most: int | None, *, lives_s: float = 3600, **how: Any
) -> Refusal | None:
    reservation = Reservation(most, PROMPT, utc_now() + timedelta(seconds=lives_s))
    async with database.write() as connection:
        return await ledger.reserve(connection, call, reservation, scope, **how)


async def book(database: Database, call: PaidCall, cost: int) -> None:
    async with database.write() as connection:
        await ledger.lock(connection, call.session_id)
        await ledger.book(connection, call, Usage(cost_microdollars=cost))


async def release(database: Database, call: PaidCall) -> None:
    async with database.write() as connection:
        await ledger.release(connection, call)


async def statuses(database: Database) -> dict[str, tuple[str, int | None]]:
    columns = (LedgerRow.id, LedgerRow.status, LedgerRow.cost_microdollars)
    async with database.read() as connection:
        return {row.id: (row.status, row.cost_microdollars) for row in await connection.execute(select(*columns))}


async def two(database: Database) -> tuple[PaidCall, PaidCall]:
    """Calls of two running turns in two sessions."""
    await start(database, SESSION, "below")
    return call_of(SESSION, scope_of(0)), call_of("below", scope_of(0, "below"))


async def test_584_sub_sessions_on_one_budget_overspend_by_one_call_at_most(database: Database) -> None:
    """Each goes on until the budget is used up; some fail, die or run twice on the way."""
    limit, most = 30_000, 1_000
    chance = random.Random(584)
    nodes = [node for depth in (1, 2, 3) for node in itertools.product("01234567", repeat=depth)]
    names = [tuple("".join(node[: depth + 1]) for depth in range(len(node))) for node in nodes]
    assert len(names) == 584
    await start(database, *(below[-1] for below in names))
    connections = asyncio.Semaphore(40)
    twenty_at_once = asyncio.Event()
    running, asked, calls = 0, 0, 0

    async def work(below: tuple[str, ...], chance: random.Random) -> str:
        nonlocal running, asked, calls
        scope, attempt, round_, waits = scope_of(limit, *below), 0, 1, 0
        while True:
            attempt += 1
            call = call_of(below[-1], scope, attempt, round_)
            async with connections:
                refusal = await reserve(database, call, scope, most)
            if refusal is not None and refusal.for_good:
                return refusal.text
            if refusal is not None:
                waits += 1
                await asyncio.sleep(min(0.1 * 2**waits, 2))
                continue
            running, asked = running + 1, asked + 1
            if running == 20:
                twenty_at_once.set()
            await twenty_at_once.wait()
            running -= 1
            fate = chance.random()
            if fate < 0.1:  # the worker dies: the next attempt finds its reservation
                continue
            async with connections:
                if fate < 0.2:  # the endpoint refuses
                    await release(database, call)
                    continue
                cost = chance.randrange(most // 2, most + 1)
                for _try in range(2 if fate < 0.3 else 1):
                    await book(database, call, cost)
            calls, attempt, round_ = calls + 1, 0, round_ + 1

    texts = await asyncio.gather(*(work(below, random.Random(chance.random())) for below in names))
    booked = [cost or 0 for status, cost in (await statuses(database)).values() if status != "reserved"]
    assert limit <= sum(booked) < limit + most
    assert asked > calls > 30
    assert {text.split(":")[0] for text in texts} == {f"The budget of session {SESSION} above it is used up"}


async def test_calls_that_reserve_at_the_same_moment(database: Database) -> None:
    names = [f"{number:02}" for number in range(40)]
    await start(database, *names)
    scopes = {name: scope_of(100, name) for name in names}
    refusals = await asyncio.gather(
        *(reserve(database, call_of(name, scopes[name]), scopes[name], 10) for name in names)
    )
    assert sum(refusal is None for refusal in refusals) == 10


async def test_a_call_alone_is_allowed_while_something_is_left(database: Database) -> None:
    first, second = await two(database)
    assert await reserve(database, first, scope_of(100), 5_000) is None
    refusal = await reserve(database, second, scope_of(100, "below"), 1)
    assert refusal is not None
    assert not refusal.for_good
    await book(database, first, 99)
    assert await reserve(database, second, scope_of(100, "below"), 5_000) is None
    await book(database, second, 1)
    refusal = await reserve(database, first._replace(id="next", round=2), scope_of(100), 1)
    assert refusal is not None
    assert refusal.for_good
    assert "100 of 100 microdollars" in refusal.text


async def test_calls_that_fit_run_at_once(database: Database) -> None:
    first, second = await two(database)
    assert await reserve(database, first, scope_of(100), 60) is None
    assert await reserve(database, second, scope_of(100, "below"), 41) is not None
    assert await reserve(database, second, scope_of(100, "below"), 40) is None


async def test_a_call_without_a_known_price_runs_alone(database: Database) -> None:
    first, second = await two(database)
    assert await reserve(database, first, scope_of(100), None) is None
    assert await reserve(database, second, scope_of(100, "below"), 1) is not None
    await book(database, first, 3)
    assert await reserve(database, second, scope_of(100, "below"), 1) is None
    again = first._replace(id="next", round=2)
    assert await reserve(database, again, scope_of(100), None) is not None


async def test_what_only_may_fit_does_not_run_alone(database: Database) -> None:
    first, _ = await two(database)
    assert await reserve(database, first, scope_of(100), 101, only_if_it_fits=True) is not None
    assert await reserve(database, first, scope_of(100), None, only_if_it_fits=True) is not None
    assert await reserve(database, first, scope_of(100), 100, only_if_it_fits=True) is None


@pytest.mark.parametrize("gone", ["its turn has ended", "its time is over", "another attempt follows"])
async def test_no_reservation_is_held_for_ever(database: Database, gone: str) -> None:
    dead, waiting = await two(database)
    lives_s = -1 if gone == "its time is over" else 3600
    assert await reserve(database, dead, scope_of(100), 100, lives_s=lives_s) is None
    if gone == "its turn has ended":
        assert await reserve(database, waiting, scope_of(100, "below"), 10) is not None
        async with database.write() as connection:
            ended = update(TurnRow).where(TurnRow.turn_id == dead.turn_id).values(status=TurnStatus.FAILED)
            await connection.execute(ended)
    elif gone == "another attempt follows":
        again = call_of(SESSION, scope_of(100), attempt=2)
        assert await reserve(database, again, scope_of(100), 50) is None
        assert await statuses(database) == {dead.id: ("estimated", 2), again.id: ("reserved", 2)}
    assert await reserve(database, waiting, scope_of(100, "below"), 10) is None


async def test_the_end_of_a_turn_makes_estimates_of_its_reservations(database: Database) -> None:
    first, second = await two(database)
    await reserve(database, first, scope_of(100), 50)
    await reserve(database, second, scope_of(100, "below"), 50)
    async with database.write() as connection:
        await ledger.settle_turn(connection, first.session_id, first.turn_id)
    assert await statuses(database) == {first.id: ("estimated", 2), second.id: ("reserved", 2)}
    async with database.read() as connection:
        used = await ledger.usage_of_each(connection, [SESSION, "below"])
    assert {session: usage.calls for session, usage in used.items()} == {SESSION: 1}, "a reservation is no usage"


async def test_a_repeated_transaction_reserves_once(database: Database) -> None:
    first, _ = await two(database)
    for _try in range(2):
        assert await reserve(database, first, scope_of(100), 60) is None
    assert await statuses(database) == {first.id: ("reserved", 2)}
