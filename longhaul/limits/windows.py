"""The two windows in which a user's costs are limited, and how much of a limit is used."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Window(StrEnum):
    """A day ends at midnight UTC, a week on Monday at 00:00 UTC."""

    DAY = "day"
    WEEK = "week"

    def start(self, now: datetime) -> datetime:
        """When the window began that holds the moment `now`."""
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight if self is Window.DAY else midnight - timedelta(days=midnight.weekday())

    def end(self, now: datetime) -> datetime:
        """When that window ends."""
        return self.start(now) + timedelta(days=1 if self is Window.DAY else 7)


@dataclass(frozen=True)
class WindowUsage:
    """What a user has spent in a window, in microdollars. `limit` 0: there is none."""

    window: Window
    used: int
    limit: int
    resets_at: datetime

    @property
    def reached(self) -> bool:
        return 0 < self.limit <= self.used

    @property
    def percent(self) -> float:
        """To one decimal: 100.0 from the limit on, and never before."""
        return 100.0 if self.reached else min(round(100 * self.used / self.limit, 1), 99.9) if self.limit else 0.0
