"""Costs of users, entered at any moment, and the limits of costs on a clock that a test sets."""

from datetime import datetime
from uuid import uuid4

from redis.asyncio import Redis
from sqlalchemy import insert

from longhaul.db.database import Database
from longhaul.db.models import LedgerRow, utc_now
from longhaul.db.spending import Spent
from longhaul.limits.counters import Clock, SpendingCounters
from longhaul.limits.usage import UsageLimits


class Watch:
    """A clock that stands still until a test sets it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class NoCounters(SpendingCounters):
    """Sums up the ledger each time, without Redis."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        super().__init__(Redis(), database, 1.0, clock)

    async def spent(self, user_id: str) -> Spent:
        return await self.by_ledger(user_id)

    async def recount(self, user_id: str) -> Spent:
        return await self.by_ledger(user_id)


def usage_limits(database: Database, clock: Clock = utc_now) -> UsageLimits:
    """Limits that need no Redis."""
    return UsageLimits(database, NoCounters(database, clock), {"FREE": 1.0, "PRO": 3.0}, clock)


async def spend(database: Database, user_id: str, microdollars: int | None, at: datetime | None = None) -> None:
    """Enter a cost as a row of the ledger, which nobody counts."""
    row = {
        "id": str(uuid4()),
        "user_id": user_id,
        "session_id": "s",
        "path": "s/",
        "turn_id": "t",
        "round": 1,
        "model": "m",
        "cost_microdollars": microdollars,
        "created_at": at or utc_now(),
    }
    async with database.write() as connection:
        await connection.execute(insert(LedgerRow), row)
