"""Resets: what a user has spent no longer counts, so that turns can start again before the window ends."""

from enum import Enum, auto

from longhaul.contracts import CostLimits
from longhaul.db import accounts
from longhaul.db.accounts import Action, Entry
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.models import utc_now
from longhaul.errors import LonghaulError, UnavailableError
from longhaul.limits.counters import Clock, RedisAwayError, SpendingCounters
from longhaul.limits.usage import Standing, UsageLimits
from longhaul.limits.windows import Window


class ResetRefusal(Enum):
    """Why a reset cannot be bought."""

    OFF = auto()
    NOT_REACHED = auto()
    WEEK_REACHED = auto()
    TOO_MANY = auto()
    NO_CREDITS = auto()


class ResetRefusedError(LonghaulError):
    """A reset cannot be bought; nothing was taken for it."""

    def __init__(self, reason: ResetRefusal, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Resets:
    """Resets that users buy, and those of admins.

    `cost`: credits that one costs; 0: none is sold. `most`: how many a user may buy a day; 0: any number.
    """

    def __init__(
        self,
        database: Database,
        counters: SpendingCounters,
        usage: UsageLimits,
        *,
        cost: int,
        most: int,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._counters = counters
        self._usage = usage
        self._cost = cost
        self._most = most
        self._clock = clock

    @property
    def cost(self) -> int:
        """Credits that a reset costs; 0: none is sold."""
        return self._cost

    async def buy(self, user_id: str, limits: CostLimits) -> int:
        """Let a user pay for a reset of the day; the credits that are left.

        The payment, the reset and the removal of the counters are one transaction under a lock on the account: if one
        of them fails, none has happened, so nothing has to be refunded.

        Raises:
            ResetRefusedError: it is not sold, not needed, or not paid for.
            UnavailableError: the database or Redis cannot be reached.
        """
        if not (self._cost and limits.daily):
            raise ResetRefusedError(ResetRefusal.OFF, "Resets are not sold here.")
        try:
            async with self._database.write() as connection:
                await accounts.lock(connection, user_id)
                now = self._clock()
                standing = await self._usage.standing_by_ledger(connection, user_id, limits)
                bought = await accounts.count(connection, user_id, Action.BOUGHT_RESET, Window.DAY.start(now))
                credits_left = await accounts.credits_of(connection, user_id)
                self._refuse(standing, bought, credits_left)
                entry = Entry(user_id, user_id, Action.BOUGHT_RESET, now, credits=-self._cost)
                await self._take_off(connection, entry, standing, Window.DAY)
        except RedisAwayError as error:
            raise UnavailableError("Redis") from error
        # Somebody may have summed them up from the ledger as it was before the commit.
        await self._counters.recount(user_id)
        return credits_left - self._cost

    async def grant(self, user_id: str, limits: CostLimits, window: Window, actor_id: str) -> None:
        """Reset a window for a user, as an admin may; with the week the day is reset too.

        Raises:
            UnavailableError: the database or Redis cannot be reached; nothing was reset.
        """
        action = Action.RESET_DAY if window is Window.DAY else Action.RESET_WEEK
        try:
            async with self._database.write() as connection:
                await accounts.lock(connection, user_id)
                standing = await self._usage.standing_by_ledger(connection, user_id, limits)
                entry = Entry(user_id, actor_id, action, self._clock())
                await self._take_off(connection, entry, standing, window)
        except RedisAwayError as error:
            raise UnavailableError("Redis") from error
        await self._counters.recount(user_id)

    async def _take_off(self, connection: Connection, entry: Entry, standing: Standing, window: Window) -> None:
        """Enter a reset. What was spent in the day is taken off the week too, which is not below 0 afterwards."""
        day, week = standing.day.used, standing.week.used
        off = min(day, week) if window is Window.DAY else week
        await accounts.add_entry(connection, entry._replace(day_microdollars=day, week_microdollars=off))
        await self._counters.forget(entry.user_id)

    def _refuse(self, standing: Standing, bought: int, credits_left: int) -> None:
        day, week = standing.day, standing.week
        if not day.reached:
            raise ResetRefusedError(ResetRefusal.NOT_REACHED, "The limit of this day is not reached.")
        if 0 < week.limit <= week.used - day.used:
            text = "The limit of this week is reached, and a reset of the day would not change that."
            raise ResetRefusedError(ResetRefusal.WEEK_REACHED, text)
        if 0 < self._most <= bought:
            raise ResetRefusedError(ResetRefusal.TOO_MANY, f"At most {self._most} resets can be bought a day.")
        if credits_left < self._cost:
            text = f"A reset costs {self._cost} credits, and you have {credits_left}."
            raise ResetRefusedError(ResetRefusal.NO_CREDITS, text)
