"""What users have spent, summed up from the ledger, less what resets of their limits have taken off."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, bindparam, func, select

from longhaul.db.connection import Connection
from longhaul.db.ledger import IS_SPENT
from longhaul.db.models import AccountEntryRow, LedgerRow
from longhaul.limits.windows import Window


class Spent(NamedTuple):
    """Microdollars that a user has spent in the current day and week. Calls of an unknown price count nothing."""

    day: int
    week: int


_in_day: BindParameter[Any] = bindparam("day")
FROM_LEDGER = select(
    func.coalesce(func.sum(LedgerRow.cost_microdollars).filter(LedgerRow.created_at >= _in_day), 0),
    func.coalesce(func.sum(LedgerRow.cost_microdollars), 0),
).where(IS_SPENT, LedgerRow.user_id == bindparam("user"), LedgerRow.created_at >= bindparam("week"))
TAKEN_OFF = select(
    func.coalesce(func.sum(AccountEntryRow.day_microdollars).filter(AccountEntryRow.created_at >= _in_day), 0),
    func.coalesce(func.sum(AccountEntryRow.week_microdollars), 0),
).where(AccountEntryRow.user_id == bindparam("user"), AccountEntryRow.created_at >= bindparam("week"))


async def spent(connection: Connection, user_id: str, now: datetime) -> Spent:
    """What a user has spent in the day and the week that hold `now`."""
    values = {"user": user_id, "day": Window.DAY.start(now), "week": Window.WEEK.start(now)}
    used = (await connection.execute(FROM_LEDGER, values)).one()
    off = (await connection.execute(TAKEN_OFF, values)).one()
    return Spent(*(max(0, int(all_) - int(less)) for all_, less in zip(used, off, strict=True)))
