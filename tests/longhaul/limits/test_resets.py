"""Resets of the day that users pay for: the rules, races, and failures that must cost nothing."""

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from longhaul.contracts import CostLimits
from longhaul.db import accounts
from longhaul.db.accounts import Action, Entry
from longhaul.db.database import Database
from longhaul.db.spending import Spent
from longhaul.errors import UnavailableError
from longhaul.limits.counters import RedisAwayError, SpendingCounters
from longhaul.limits.resets import ResetRefusal, ResetRefusedError, Resets
from longhaul.limits.usage import UsageLimits
from testkit.spending import Watch, spend
from tests.longhaul.limits.conftest import NOON

LIMITS = CostLimits(daily=1_000, weekly=5_000)
COST = 30


@pytest.fixture
def usage(database: Database, counters: SpendingCounters, watch: Watch) -> UsageLimits:
    return UsageLimits(database, counters, {"FREE": 1.0}, watch)


@pytest.fixture
def resets(database: Database, counters: SpendingCounters, usage: UsageLimits, watch: Watch) -> Resets:
    return Resets(database, counters, usage, cost=COST, most=2, clock=watch)


async def grant(database: Database, user: str, credits_: int) -> None:
    async with database.write() as connection:
        await accounts.add_entry(connection, Entry(user, "admin", Action.GRANTED_CREDITS, NOON, credits=credits_))


async def credits_of(database: Database, user: str) -> int:
    async with database.read() as connection:
        return await accounts.credits_of(connection, user)


async def refused(resets: Resets, user: str, limits: CostLimits = LIMITS) -> ResetRefusal:
    with pytest.raises(ResetRefusedError) as raised:
        await resets.buy(user, limits)
    return raised.value.reason


async def test_a_reset(
    database: Database, resets: Resets, usage: UsageLimits, counters: SpendingCounters, user: str
) -> None:
    await grant(database, user, 100)
    await spend(database, user, 700, NOON - timedelta(days=1))
    await spend(database, user, 1_200, NOON)
    assert await usage.refusal(user, LIMITS) is not None
    assert await resets.buy(user, LIMITS) == 70
    assert await usage.refusal(user, LIMITS) is None
    assert await counters.spent(user) == Spent(0, 700)
    assert await counters.by_ledger(user) == Spent(0, 700), "a Redis that forgets it all forgets no reset"
    await spend(database, user, 1_000, NOON)
    assert await counters.recount(user) == Spent(1_000, 1_700)


async def test_what_refuses_it(database: Database, resets: Resets, usage: UsageLimits, watch: Watch, user: str) -> None:
    off = Resets(database, resets._counters, usage, cost=0, most=2, clock=watch)
    await spend(database, user, 1_000, NOON)
    assert await refused(off, user) is ResetRefusal.OFF
    assert await refused(resets, user, CostLimits(weekly=1)) is ResetRefusal.OFF
    assert await refused(resets, user, CostLimits(daily=1_001)) is ResetRefusal.NOT_REACHED
    assert await refused(resets, user) is ResetRefusal.NO_CREDITS
    await grant(database, user, COST - 1)
    assert await refused(resets, user) is ResetRefusal.NO_CREDITS
    assert await credits_of(database, user) == COST - 1


async def test_a_week_that_is_used_up_too(database: Database, resets: Resets, user: str) -> None:
    """A reset is only sold if a turn can start afterwards."""
    await grant(database, user, 100)
    await spend(database, user, 4_000, NOON - timedelta(days=1))
    await spend(database, user, 1_000, NOON)
    assert await resets.buy(user, LIMITS) == 70
    await spend(database, user, 1_000, NOON)
    await spend(database, user, 1_000, NOON - timedelta(days=1))
    assert await refused(resets, user) is ResetRefusal.WEEK_REACHED
    assert await credits_of(database, user) == 70


async def test_at_most_so_many_a_day(database: Database, resets: Resets, watch: Watch, user: str) -> None:
    limits = CostLimits(daily=1_000)
    await grant(database, user, 1_000)
    for _ in range(2):
        await spend(database, user, 1_000, watch.now)
        await resets.buy(user, limits)
    await spend(database, user, 1_000, watch.now)
    assert await refused(resets, user, limits) is ResetRefusal.TOO_MANY
    watch.now += timedelta(days=1)
    await spend(database, user, 1_000, watch.now)
    await resets.buy(user, limits)
    assert await credits_of(database, user) == 1_000 - 3 * COST


async def test_one_of_many_at_once_is_paid(database: Database, resets: Resets, user: str) -> None:
    await grant(database, user, 1_000)
    await spend(database, user, 1_000, NOON)
    results = await asyncio.gather(*(resets.buy(user, LIMITS) for _ in range(8)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ResetRefusedError"] * 7 + ["int"]
    assert await credits_of(database, user) == 1_000 - COST


async def test_nothing_is_charged_without_redis(
    database: Database, away: "Redis", usage: UsageLimits, watch: Watch, user: str
) -> None:
    resets = Resets(database, SpendingCounters(away, database, 1.0, watch), usage, cost=COST, most=2, clock=watch)
    await grant(database, user, 100)
    await spend(database, user, 1_000, NOON)
    with pytest.raises(UnavailableError, match="Redis"):
        await resets.buy(user, LIMITS)
    assert await credits_of(database, user) == 100
    assert await usage.refusal(user, LIMITS) is not None
    await away.aclose()


async def test_a_reset_that_fails_at_its_last_step_costs_nothing(
    database: Database,
    resets: Resets,
    counters: SpendingCounters,
    usage: UsageLimits,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(_: str) -> None:
        raise RedisAwayError("gone in the middle")

    await grant(database, user, 100)
    await spend(database, user, 1_000, NOON)
    monkeypatch.setattr(counters, "forget", fails)
    with pytest.raises(UnavailableError):
        await resets.buy(user, LIMITS)
    assert await credits_of(database, user) == 100
    monkeypatch.undo()
    assert await usage.refusal(user, LIMITS) is not None
    assert await resets.buy(user, LIMITS) == 70
