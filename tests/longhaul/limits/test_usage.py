"""Whether a user may start a turn: limits, tiers, windows, and what happens without Redis."""

from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from longhaul.contracts import CostLimits
from longhaul.db import accounts
from longhaul.db.database import Database
from longhaul.errors import UsageLimitError
from longhaul.limits.counters import SpendingCounters, counter_keys
from longhaul.limits.usage import UsageLimits
from testkit.spending import Watch, spend
from tests.longhaul.limits.conftest import NOON

LIMITS = CostLimits(daily=1_000, weekly=5_000)
TIERS = {"FREE": 1.0, "PRO": 2.5}


@pytest.fixture
def usage(database: Database, counters: SpendingCounters, watch: Watch) -> UsageLimits:
    return UsageLimits(database, counters, TIERS, watch)


async def refused(usage: UsageLimits, user: str, limits: CostLimits = LIMITS) -> UsageLimitError:
    refusal = await usage.refusal(user, limits)
    assert refusal is not None
    return refusal


async def test_the_limit_itself_refuses(database: Database, usage: UsageLimits, redis: "Redis", user: str) -> None:
    await spend(database, user, 999, NOON)
    assert await usage.refusal(user, LIMITS) is None
    await spend(database, user, 1, NOON)
    await redis.delete(*counter_keys(user, NOON))
    refusal = await refused(usage, user)
    assert refusal.resets_at == datetime(2026, 11, 22, tzinfo=UTC)
    assert refusal.seconds_left == 12 * 3600
    assert "this day" in str(refusal)
    assert "Sunday, 22 November 2026, 00:00 UTC" in str(refusal)
    assert "1000" not in str(refusal), "amounts are for admins"


async def test_midnight_and_monday_end_it(database: Database, usage: UsageLimits, watch: Watch, user: str) -> None:
    await spend(database, user, 5_000, NOON)
    assert (await refused(usage, user)).resets_at == datetime(2026, 11, 23, tzinfo=UTC), "the later of both"
    watch.now = datetime(2026, 11, 22, tzinfo=UTC)
    refusal = await refused(usage, user)
    assert "this week" in str(refusal)
    assert await usage.refusal(user, CostLimits(daily=1_000)) is None
    watch.now = datetime(2026, 11, 23, tzinfo=UTC) - timedelta(seconds=1)
    assert (await refused(usage, user)).seconds_left == 1
    watch.now += timedelta(seconds=1)
    assert await usage.refusal(user, LIMITS) is None


async def test_zero_is_no_limit(database: Database, usage: UsageLimits, user: str) -> None:
    await spend(database, user, 10**12, NOON)
    assert await usage.refusal(user, CostLimits()) is None
    assert await usage.refusal(user, CostLimits(daily=10**12 + 1)) is None
    assert "this week" in str(await refused(usage, user, CostLimits(weekly=1)))
    standing = await usage.standing(user, CostLimits())
    assert (standing.day.limit, standing.week.limit) == (0, 0)


@pytest.mark.parametrize(
    ("claimed", "own", "tier", "limit"),
    [
        (None, None, "FREE", 1_000),
        ("pro", None, "PRO", 2_500),
        ("pro", "FREE", "FREE", 1_000),
        (None, "PRO", "PRO", 2_500),
        ("unheard-of", None, "FREE", 1_000),
    ],
)
async def test_tiers_multiply(
    database: Database,
    usage: UsageLimits,
    redis: "Redis",
    user: str,
    claimed: str | None,
    own: str | None,
    tier: str,
    limit: int,
) -> None:
    async with database.write() as connection:
        await accounts.note_claims(connection, user, "ada@example.com", claimed)
        await accounts.set_tier(connection, user, own)
    await spend(database, user, limit - 1, NOON)
    standing = await usage.standing(user, LIMITS)
    assert (standing.tier, standing.day.limit, standing.day.percent) == (tier, limit, 99.9)
    assert await usage.refusal(user, LIMITS) is None
    await spend(database, user, 1, NOON)
    await redis.delete(*counter_keys(user, NOON))
    await refused(usage, user)
    assert (await usage.standing(user, LIMITS)).day.percent == 100.0


async def test_without_redis_turns_run(database: Database, away: "Redis", watch: Watch, user: str) -> None:
    usage = UsageLimits(database, SpendingCounters(away, database, 1.0, watch), TIERS, watch)
    await spend(database, user, 10_000, NOON)
    assert await usage.refusal(user, LIMITS) is None
    assert (await usage.standing(user, LIMITS)).day.percent == 100.0, "what is shown comes from the ledger"
    await away.aclose()


async def test_a_counter_that_is_too_high_refuses_nobody(
    database: Database, redis: "Redis", usage: UsageLimits, user: str
) -> None:
    await spend(database, user, 10, NOON)
    for key in counter_keys(user, NOON):
        await redis.set(key, 10**9, ex=60)
    assert await usage.refusal(user, LIMITS) is None
    assert [int(value or 0) for value in await redis.mget(counter_keys(user, NOON))] == [10, 10]
