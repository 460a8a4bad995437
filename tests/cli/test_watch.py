"""`longhaul watch`: what runs, waits and has failed, on one screen."""

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from cli.watch import screen
from longhaul.contracts import TurnStatus
from longhaul.db.turns import TurnRecord
from longhaul.overview import Overview, Queue, Running
from testkit.product import Product
from testkit.wait import until

NOW = datetime(2026, 11, 22, 1, tzinfo=UTC)


@pytest.mark.backends("sqlite")
async def test_once_shows_what_runs_and_what_failed(product: Product) -> None:
    failing, running = [await product.api.create_session() for _ in range(2)]
    turn = await product.api.start(failing, "hello [fault=status:400 times=50]")
    await product.api.wait_for_turn(failing, turn)
    turn = await product.api.start(running, "wait 250 s")

    async def waits() -> bool:
        return bool((await product.api.progress(running, turn))["tools_running"])

    await until(waits, what="the tool runs")
    code, said = await product.command("watch", "--once")
    assert code == 0
    above, below = said.split("queue ")
    assert running in above
    assert failing in below
    assert "status 400" in below
    stores = next(line.split() for line in below.splitlines() if line.startswith("stores"))
    assert stores[1] == "1"
    await product.api.cancel(running)


def test_a_lost_turn_and_a_queue_without_workers_stand_out() -> None:
    lost = TurnRecord(
        "t", "s" * 36, "u", TurnStatus.RUNNING, "m", "fast", "standard", None, None, None, NOW, None, None
    )
    seen = Overview(
        NOW + timedelta(days=2, hours=3), [Running(lost, None)], [Queue("calls", 0, 0, 7, timedelta(seconds=61))], []
    )
    console = Console(width=140, record=True, force_terminal=True)
    console.print(screen(seen))
    text = console.export_text()
    assert "not known to Temporal" in text
    assert "2 d 3 h" in text
    assert "1 min 1 s" in text
    assert "failed" not in text
