"""Stop that no worker hears of in time: the activity that it was meant for ends as if nothing had been."""

from tests.harness.checks import check_rows
from tests.harness.grammar import check_stream
from tests.harness.pool import MakeProduct
from tests.harness.wait import until

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
