"""The counters in Redis: what is booked counts, midnight and Monday end them, and the ledger restores them."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from longhaul.contracts import Budget, Scope, Usage
from longhaul.db import ledger, sessions
from longhaul.db.database import Database
from longhaul.db.ledger import PaidCall
from longhaul.db.spending import Spent
from longhaul.limits import counters as counting
from longhaul.limits.counters import LIFETIME_S, RedisAwayError, SpendingCounters, counter_keys
from testkit.spending import Watch, spend
from tests.longhaul.limits.conftest import NOON


def call(user: str, number: int = 1) -> PaidCall:
    return PaidCall(f"{user}-{number}", user, "s", "s/", "t", number, 1, "m")


async def book(database: Database, paid: PaidCall, cost: int | None, *, estimated: bool = False) -> None:
    async with database.write() as connection:
        await ledger.book(connection, paid, Usage(calls=1, cost_microdollars=cost), estimated=estimated)


async def stored(redis: "Redis", user: str, at: datetime) -> list[bytes | str | None]:
    return await redis.mget(counter_keys(user, at))


async def test_the_windows_of_the_ledger(database: Database, counters: SpendingCounters, user: str) -> None:
    midnight, monday = NOON.replace(hour=0), datetime(2026, 11, 16, tzinfo=UTC)
    tick = timedelta(microseconds=1)
    for at, cost in ((NOON, 1), (midnight, 20), (midnight - tick, 300), (monday, 4_000), (monday - tick, 50_000)):
        await spend(database, user, cost, at)
    await spend(database, user, None, NOON)
    await spend(database, "somebody else", 600_000, NOON)
    assert await counters.spent(user) == Spent(21, 4_321)


async def test_midnight_and_monday_begin_anew(
    database: Database, counters: SpendingCounters, watch: Watch, user: str
) -> None:
    await spend(database, user, 7, NOON)
    assert await counters.spent(user) == Spent(7, 7)
    watch.now = datetime(2026, 11, 22, tzinfo=UTC)
    assert await counters.spent(user) == Spent(0, 7)
    await spend(database, user, 5, watch.now)
    watch.now = datetime(2026, 11, 23, tzinfo=UTC) - timedelta(seconds=1)
    assert await counters.recount(user) == Spent(5, 12)
    watch.now += timedelta(seconds=1)
    assert await counters.spent(user) == Spent(0, 0)


async def test_counters_end_with_their_window(
    database: Database, redis: "Redis", counters: SpendingCounters, watch: Watch, user: str
) -> None:
    await counters.spent(user)
    for key in counter_keys(user, NOON):
        assert 0 < await redis.ttl(key) <= LIFETIME_S
    watch.now = datetime(2026, 11, 23, tzinfo=UTC) - timedelta(seconds=90)
    await counters.recount(user)
    for key in counter_keys(user, watch.now):
        assert 0 < await redis.ttl(key) <= 90


async def test_what_is_booked_is_counted(
    database: Database,
    redis: "Redis",
    counters: SpendingCounters,
    watch: Watch,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bill instead of an estimate counts the difference; the same bill again counts nothing."""
    monkeypatch.setattr(ledger, "utc_now", lambda: watch.now)
    assert await counters.spent(user) == Spent(0, 0)
    for cost, estimated, expected in ((70, True, 70), (50, False, 50), (50, False, 50), (90, True, 50)):
        await book(database, call(user), cost, estimated=estimated)
        assert await stored(redis, user, NOON) == [str(expected).encode()] * 2
    await book(database, call(user, 2), None)
    await book(database, call(user, 3), 8)
    assert await stored(redis, user, NOON) == [b"58", b"58"]
    assert await counters.by_ledger(user) == Spent(58, 58)


async def test_reservations_count_when_they_become_estimates(
    database: Database, counters: SpendingCounters, watch: Watch, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "utc_now", lambda: watch.now)
    paid = call(user)
    async with database.write() as connection:
        await sessions.create(connection, sessions.NewSession(paid.session_id, user, agent="helper"))
        prompt = Usage(cost_microdollars=40)
        reservation = ledger.Reservation(100, prompt, NOON + timedelta(hours=1))
        scope = Scope(budgets=(Budget(session_id="s", max_cost_microdollars=1000),))
        assert await ledger.reserve(connection, paid, reservation, scope) is None
    assert await counters.spent(user) == Spent(0, 0), "what is only reserved is not spent"
    async with database.write() as connection:
        await ledger.settle_turn(connection, paid.session_id, paid.turn_id)
    assert await counters.spent(user) == await counters.by_ledger(user)


async def test_a_rolled_back_transaction_counts_nothing(
    database: Database, counters: SpendingCounters, watch: Watch, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "utc_now", lambda: watch.now)
    await counters.spent(user)

    async def fails() -> None:
        async with database.write() as connection:
            await ledger.book(connection, call(user), Usage(cost_microdollars=9))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert await counters.spent(user) == Spent(0, 0)


async def test_a_flushed_redis_is_filled_from_the_ledger(
    database: Database,
    redis: "Redis",
    counters: SpendingCounters,
    watch: Watch,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "utc_now", lambda: watch.now)
    await counters.spent(user)
    for number in range(20):
        await book(database, call(user, number), 10)
        if number % 7 == 3:
            await redis.delete(*counter_keys(user, NOON))
        if number % 7 == 5:
            assert await counters.spent(user) == Spent(10 * number + 10, 10 * number + 10)
    assert await counters.spent(user) == Spent(200, 200)
    assert await stored(redis, user, NOON) == [b"200", b"200"]


async def test_what_is_booked_while_a_counter_is_summed_up_is_not_lost(
    database: Database,
    redis: "Redis",
    counters: SpendingCounters,
    watch: Watch,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sum was read before the booking, and is stored after it: it must not stay."""
    monkeypatch.setattr(ledger, "utc_now", lambda: watch.now)
    real, read, booked = counters.by_ledger, asyncio.Event(), asyncio.Event()

    async def held(user_id: str) -> Spent:
        sums = await real(user_id)
        read.set()
        await booked.wait()
        return sums

    monkeypatch.setattr(counters, "by_ledger", held)
    summing = asyncio.create_task(counters.spent(user))
    await read.wait()
    await book(database, call(user), 33)
    booked.set()
    assert await summing == Spent(0, 0)
    monkeypatch.undo()
    assert await counters.spent(user) == Spent(33, 33)


async def test_many_at_once(
    database: Database,
    redis: "Redis",
    counters: SpendingCounters,
    watch: Watch,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "utc_now", lambda: watch.now)
    await counters.spent(user)
    await asyncio.gather(*(book(database, call(user, number), number) for number in range(50)))
    assert await stored(redis, user, NOON) == [b"1225", b"1225"]


async def test_without_redis(
    database: Database, away: "Redis", watch: Watch, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Booking goes on, what is spent is not known, and a hung Redis is not asked each time."""
    monkeypatch.setattr(counting, "PAUSE_S", 1e6)
    counters = SpendingCounters(away, database, 1.0, watch)
    database.count_bookings = counters.count
    await book(database, call(user), 9)
    with pytest.raises(RedisAwayError):
        await counters.spent(user)
    with pytest.raises(RedisAwayError, match="a moment ago"):
        await counters.spent(user)
    watch.now = datetime.now(UTC)
    assert await counters.recount(user) == Spent(9, 9)
    await away.aclose()


async def test_a_broken_counter_is_replaced(
    database: Database, redis: "Redis", counters: SpendingCounters, user: str
) -> None:
    await spend(database, user, 3, NOON)
    for key in counter_keys(user, NOON):
        await redis.set(key, "nonsense", ex=counting.CLAIM_S)
    assert await counters.spent(user) == Spent(3, 3)
    assert await stored(redis, user, NOON) == [b"3", b"3"]


def test_the_keys_of_a_user_share_a_slot() -> None:
    day, week = counter_keys("auth0|ada", NOON)
    assert day == "copilot:cost:{auth0|ada}:day:2026-11-21"
    assert week == "copilot:cost:{auth0|ada}:week:2026-11-16"
