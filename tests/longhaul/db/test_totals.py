"""Totals of the ledger and what users have spent, on both databases."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from longhaul.contracts import Usage
from longhaul.db import accounts, spending, totals
from longhaul.db.accounts import Account, Action, Entry
from longhaul.db.database import Database
from longhaul.db.models import LedgerRow
from longhaul.db.spending import Spent
from longhaul.db.totals import Filters, Group, Total
from testkit.spending import spend

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 25, tzinfo=UTC)
TICK = timedelta(microseconds=1)


async def test_groups_and_filters(database: Database) -> None:
    for cost, at in ((1, MIDNIGHT - TICK), (20, MIDNIGHT), (300, NOON), (None, NOON)):
        await spend(database, "ann", cost, at)
    await spend(database, "bob", 4_000, NOON)
    await spend(database, "bob", 50_000, NOON)
    async with database.write() as connection:
        reserved = update(LedgerRow).where(LedgerRow.cost_microdollars == 50_000)
        await connection.execute(reserved.values(status="reserved"))
        helped = update(LedgerRow).where(LedgerRow.cost_microdollars == 4_000)
        await connection.execute(helped.values(agent="helper", status="estimated"))

    async def found(*by: Group, most: int = 10, **filters: object) -> list[tuple[tuple[str | None, ...], int | None]]:
        async with database.read() as connection:
            rows = await totals.totals(connection, by, Filters(**filters), most)  # type: ignore[arg-type]
        return [(row.keys, row.usage.cost_microdollars) for row in rows]

    assert await found(Group.USER) == [(("ann",), 321), (("bob",), 4_000)]
    assert await found(Group.USER, most=1) == [(("ann",), 321)]
    assert await found(Group.DAY, Group.USER) == [
        (("2026-11-24", "ann"), 1),
        (("2026-11-25", "ann"), 320),
        (("2026-11-25", "bob"), 4_000),
    ]
    assert await found(Group.USER, since=MIDNIGHT, until=NOON) == [(("ann",), 20)]
    assert sorted(await found(Group.AGENT), key=str) == [(("helper",), 4_000), ((None,), 321)]
    assert await found(Group.MODEL, Group.KIND, user="bob") == [(("m", "turn"), 4_000)]
    for nobody in ({"user": "eve"}, {"agent": "other"}, {"model": "n"}, {"kind": "title"}):
        assert await found(Group.USER, **nobody) == []  # type: ignore[arg-type]
    async with database.read() as connection:
        rows = await totals.totals(connection, [Group.USER], Filters(), 10)
    assert rows == [
        Total(("ann",), Usage(calls=4, cost_microdollars=321), estimated=0, unpriced=1),
        Total(("bob",), Usage(calls=1, cost_microdollars=4_000), estimated=1, unpriced=0),
    ]


async def test_resets_are_taken_off_their_own_windows(database: Database) -> None:
    for cost, at in ((700, MIDNIGHT - TICK), (1_000, MIDNIGHT), (50, NOON)):
        await spend(database, "ann", cost, at)
    for at, day, week in ((MIDNIGHT - TICK, 600, 600), (NOON, 1_040, 900)):
        async with database.write() as connection:
            entry = Entry("ann", "boss", Action.RESET_DAY, at, day_microdollars=day, week_microdollars=week)
            await accounts.add_entry(connection, entry)
    async with database.read() as connection:
        assert await spending.spent(connection, "ann", NOON) == Spent(10, 250)
        assert await spending.spent(connection, "ann", NOON + timedelta(days=1)) == Spent(0, 250)
        assert await spending.spent(connection, "ann", NOON + timedelta(days=7)) == Spent(0, 0)
        assert await spending.spent(connection, "bob", NOON) == Spent(0, 0)


async def test_accounts(database: Database) -> None:
    async with database.write() as connection:
        assert await accounts.find(connection, "ann") is None
        assert not await accounts.is_known(connection, "ann")
        await accounts.note_claims(connection, "ann", "ann@example.com", "PRO")
        await accounts.set_tier(connection, "bob", "MAX")
        await accounts.note_claims(connection, "bob", "ann@example.com", None)
        await accounts.set_tier(connection, "ann", None)
        await accounts.add_entry(connection, Entry("ann", "boss", Action.GRANTED_CREDITS, NOON, credits=70))
        await accounts.add_entry(connection, Entry("ann", "ann", Action.BOUGHT_RESET, NOON + TICK, credits=-30))
    async with database.read() as connection:
        ann = Account("ann", "ann@example.com", "PRO", None)
        bob = Account("bob", "ann@example.com", None, "MAX")
        assert await accounts.of_email(connection, "ann@example.com", 5) == [ann, bob]
        assert await accounts.of_email(connection, "ANN@example.com", 5) == []
        assert [await accounts.get(connection, name) for name in ("ann", "bob")] == [ann, bob]
        assert await accounts.is_known(connection, "ann")
        assert await accounts.credits_of(connection, "ann") == 40
        assert await accounts.credits_of(connection, "bob") == 0
        assert await accounts.count(connection, "ann", Action.BOUGHT_RESET, NOON) == 1
        assert await accounts.count(connection, "ann", Action.BOUGHT_RESET, NOON + 2 * TICK) == 0
        newest = await accounts.entries(connection, "ann", 1)
    assert [(one.action, one.credits) for one in newest] == [(Action.BOUGHT_RESET, -30)]
