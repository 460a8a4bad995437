"""Whether a user may start a turn, and how much of the limits is used."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from longhaul.contracts import CostLimits
from longhaul.db import accounts, spending
from longhaul.db.accounts import Account
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.models import utc_now
from longhaul.db.spending import Spent
from longhaul.errors import UsageLimitError
from longhaul.limits.counters import Clock, RedisAwayError, SpendingCounters
from longhaul.limits.windows import Window, WindowUsage
from longhaul.settings.costs import DEFAULT_TIER

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """How a user stands. The limits of `day` and `week` are those of the user's tier."""

    tier: str
    day: WindowUsage
    week: WindowUsage


class UsageLimits:
    """The limits of what users spend in a day and a week. `tiers`: what each tier multiplies them by."""

    def __init__(
        self, database: Database, counters: SpendingCounters, tiers: Mapping[str, float], clock: Clock = utc_now
    ) -> None:
        self._database = database
        self._counters = counters
        self._tiers = tiers
        self._clock = clock

    async def refusal(self, user_id: str, limits: CostLimits) -> UsageLimitError | None:
        """Why this user may not start a turn now; None: the turn may start, as it may while Redis is away.

        Counters alone refuse nobody: the ledger is asked before.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        if not (limits.daily or limits.weekly):
            return None
        try:
            spent = await self._counters.spent(user_id)
        except RedisAwayError as error:
            log.warning("the limits of what users spend are not being checked: %s", error)
            return None
        tier = await self._tier(user_id)
        if not _reached(self._standing(tier, spent, limits)):
            return None
        reached = _reached(self._standing(tier, await self._counters.recount(user_id), limits))
        if not reached:
            return None
        last = max(reached, key=lambda usage: usage.resets_at)
        return UsageLimitError(last.window, last.resets_at, self._clock())

    async def standing(self, user_id: str, limits: CostLimits) -> Standing:
        """How a user stands; by the ledger while Redis is away.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        try:
            spent = await self._counters.spent(user_id)
        except RedisAwayError:
            spent = await self._counters.by_ledger(user_id)
        return self._standing(await self._tier(user_id), spent, limits)

    async def standing_by_ledger(self, connection: Connection, user_id: str, limits: CostLimits) -> Standing:
        """How a user stands, as the caller's transaction sees it."""
        spent = await spending.spent(connection, user_id, self._clock())
        return self._standing(tier_of(await accounts.get(connection, user_id), self._tiers), spent, limits)

    async def _tier(self, user_id: str) -> str:
        async with self._database.read() as connection:
            return tier_of(await accounts.get(connection, user_id), self._tiers)

    def _standing(self, tier: str, spent: Spent, limits: CostLimits) -> Standing:
        now, factor = self._clock(), self._tiers.get(tier, 1.0)

        def usage(window: Window, used: int, limit: int) -> WindowUsage:
            return WindowUsage(window, used, max(1, round(limit * factor)) if limit else 0, window.end(now))

        return Standing(tier, usage(Window.DAY, spent.day, limits.daily), usage(Window.WEEK, spent.week, limits.weekly))


def tier_of(account: Account, tiers: Mapping[str, float]) -> str:
    """The tier that counts: the one that an admin has set, else the token's. An unknown one counts as the default."""
    tier = (account.tier or account.claimed_tier or DEFAULT_TIER).upper()
    return tier if tier in tiers else DEFAULT_TIER


def _reached(standing: Standing) -> list[WindowUsage]:
    return [usage for usage in (standing.day, standing.week) if usage.reached]
