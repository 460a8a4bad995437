"""A short `make chaos` with a fixed seed."""

import pytest

from testkit.chaos.breakages import RECOVERY_LIMIT_S
from testkit.chaos.run import SETTINGS, chaos
from testkit.pool import MakeProduct


@pytest.mark.timeout(400)
async def test_nothing_is_lost(make_product: MakeProduct) -> None:
    product = await make_product(
        workers=2, apis=2, settings=SETTINGS, own_temporal=True, own_redis=True, own_model=True
    )
    outcome = await chaos(product, seed=7, seconds=20, sessions=6, pause=(0.3, 1.5))
    verdict = outcome.verdict
    assert (verdict.lost, verdict.doubled, verdict.stuck, verdict.wrong) == ([], [], [], [])
    assert verdict.turns > 6
    assert sum(outcome.faults.values()) >= 3
    assert outcome.slowest_recovery < RECOVERY_LIMIT_S
