"""Days and weeks in UTC, and percents of a limit."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from longhaul.limits.windows import Window, WindowUsage

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("now", "day", "week"),
    [
        (MONDAY - TICK, MONDAY - timedelta(days=1), MONDAY - timedelta(days=7)),
        (MONDAY, MONDAY, MONDAY),
        (MONDAY + timedelta(days=6, hours=23), MONDAY + timedelta(days=6), MONDAY),
        (datetime(2028, 2, 29, 12, tzinfo=UTC), datetime(2028, 2, 29, tzinfo=UTC), datetime(2028, 2, 28, tzinfo=UTC)),
        (datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), datetime(2026, 12, 28, tzinfo=UTC)),
    ],
)
def test_windows_begin_at_midnight_and_on_monday(now: datetime, day: datetime, week: datetime) -> None:
    for elsewhere in (UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))):
        local = now.astimezone(elsewhere)
        assert (Window.DAY.start(local), Window.WEEK.start(local)) == (day, week)
        assert (Window.DAY.end(local), Window.WEEK.end(local)) == (day + timedelta(days=1), week + timedelta(days=7))


@pytest.mark.parametrize(
    ("used", "limit", "percent"),
    [
        (0, 1000, 0.0),
        (1, 3, 33.3),
        (999_499, 1_000_000, 99.9),
        (999_999, 1_000_000, 99.9),
        (1_000_000, 1_000_000, 100.0),
        (7_000_000, 1_000_000, 100.0),
        (5, 0, 0.0),
    ],
)
def test_percent_is_exactly_100_from_the_limit_on(used: int, limit: int, percent: float) -> None:
    usage = WindowUsage(Window.DAY, used, limit, MONDAY)
    assert usage.percent == percent
    assert usage.reached is (percent == 100.0)
