"""How long a process gathers what comes in small pieces."""

import pytest

from longhaul.process_load import BUSY_SHARE, IDLE_SHARE, MOST_STRETCH, ProcessLoad


def test_a_busy_process_gathers_for_longer() -> None:
    """Each measurement covers the time since the one before; looks within it change nothing."""
    now, used = 0.0, 0.0
    load = ProcessLoad(lambda: now, lambda: used)
    assert load.stretch() == 1
    now, used = 10.0, 20.0
    assert load.stretch() == MOST_STRETCH
    now = 10.1
    assert load.stretch() == MOST_STRETCH
    now, used = 20.0, 20.0 + 10 * (IDLE_SHARE + BUSY_SHARE) / 2
    assert load.stretch() == pytest.approx((1 + MOST_STRETCH) / 2)
    now = 30.0
    assert load.stretch() == 1
