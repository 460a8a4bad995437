"""Stop in the middle of tools, and Stop that no worker hears of before the step it was meant for has ended."""

from pathlib import Path

from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.wait import until
from tests.recovery.tools import Gate

#: Workers learn of a cancel with a heartbeat, so these never do.
DEAF = {"LONGHAUL_HEARTBEAT_INTERVAL": "60", "LONGHAUL_HEARTBEAT_TIMEOUT": "180"}


async def test_the_turn_ends_with_the_step_it_is_in(make_product: MakeProduct) -> None:
    product = await make_product(settings=DEAF)
    session = await product.api.create_session()
    live = await product.api.open(session, "rounds 50 [ttft=1500]")

    async def asked() -> bool:
        return bool((await product.servers.model.stats())["by_key"].get(f"{live.log.turn_id}:1"))

    await until(asked, what="the model is asked")
    assert (await product.api.cancel(session)).body["status"] == "cancelled"
    log = check_stream(await live.done())
    assert (log.count("abort"), log.count("finish")) == (1, 1)
    found = await check_rows(product.database, answered=False)
    assert [turn.status for turn in found.turns[session]] == ["cancelled"]
    assert max(row.round for row in found.of(session, "assistant")) == 1
    stats = await product.servers.model.stats()
    assert [key for key in stats["by_key"] if key.startswith(live.log.turn_id)] == [f"{live.log.turn_id}:1"]


async def test_in_parallel_tools(make_product: MakeProduct, tmp_path: Path) -> None:
    """Three runs that do not end by themselves: each gets its output row, and none is run again."""
    gate = Gate(tmp_path)
    product = await make_product(settings=gate.settings)
    session = await product.api.create_session()
    live = await product.api.open(session, "2*3 and 4*5 and 6*7")
    await until(lambda: len(gate.runs("calculator")) == 3, what="three tools run")
    assert (await product.api.cancel(session)).body["status"] == "cancelled"
    log = check_stream(await live.done())
    assert (log.count("abort"), log.count("tool-output-error")) == (1, 3)
    gate.open()
    following = check_stream(await product.api.stream(session, "hello"))
    assert following.count("finish") == 1
    found = await check_rows(product.database, answered=False)
    assert [row.is_error for row in found.of(session, "tool")] == [True] * 3
    assert [turn.status for turn in found.turns[session]] == ["cancelled", "completed"]
    assert len(gate.runs()) == 3
