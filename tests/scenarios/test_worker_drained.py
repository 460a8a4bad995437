"""SIGTERM drains a worker: nothing new is taken, what runs gets its grace and is then handed over at once."""

import asyncio
from pathlib import Path

from testkit.checks import check_rows
from testkit.client import LiveStream
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.process import Process
from testkit.product import Product
from testkit.wait import until
from tests.scenarios.held_tools import Gate
from tests.scenarios.support import attempts, history, identities, working_on

#: Seconds: longer than the test waits, so a hand-over that waits for this time-out fails it.
HEARTBEAT_TIMEOUT = "180"


async def test_hands_over_at_once(make_product: MakeProduct, tmp_path: Path) -> None:
    """A model call and a tool in the middle, a grace of half a second: another worker goes on with both at once."""
    gate = Gate(tmp_path)
    settings = {"LONGHAUL_HEARTBEAT_TIMEOUT": HEARTBEAT_TIMEOUT, "LONGHAUL_SHUTDOWN_GRACE": "0.5", **gate.settings}
    product = await make_product(workers=2, settings=settings)
    computing = await product.api.create_session()
    other = await product.api.open(computing, "2*3")
    drained = await working_on(product, computing, "run_tool")
    speaking, live = await spoken_by(product, drained)
    await live.until_seen("text-delta", 3)
    with product.servers.model.paused():
        assert await product.terminate(drained) == 0
    gate.open()
    log, _ = await asyncio.gather(live.done(), other.done())
    check_stream(log)
    check_stream(other.log)
    assert log.count("data-voided") == 1
    for session, activity in ((speaking, "call_model"), (computing, "run_tool")):
        [(attempt, failure, identity)] = [one for one in attempts(await history(product, session), activity) if one[1]]
        assert (attempt, failure) == (2, "HandedOver")
        assert not identity.startswith(f"{drained.pid}@")
    found = await check_rows(product.database, answered=False)
    assert found.of(speaking, "assistant")[-1].content == log.text()
    assert await product.servers.model.answered(log.turn_id) == {1: 1}


async def spoken_by(product: Product, worker: Process) -> tuple[str, LiveStream]:
    """A session whose long answer this worker streams; answers that another worker streams are stopped."""
    for _ in range(20):
        session = await product.api.create_session()
        live = await product.api.open(session, "speak 100 [delay=50]")
        if await working_on(product, session) is worker:
            return session, live
        await product.api.cancel(session)
        await live.done()
    raise AssertionError("the other worker got every turn")


async def test_takes_nothing_new_and_ends_what_it_has(make_product: MakeProduct) -> None:
    product = await make_product(workers=2, settings={"LONGHAUL_SHUTDOWN_GRACE": "30"})
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 60 [delay=100]")
    await live.until_seen("text-delta", 3)
    drained = await working_on(product, session)
    stop = asyncio.create_task(product.terminate(drained))
    await until(lambda: "drains" in drained.tail(), what="the worker drains")
    others = [await product.api.create_session() for _ in range(5)]
    turns = [await product.api.start(other, "6*7") for other in others]
    for other, turn in zip(others, turns, strict=True):
        await product.api.wait_for_turn(other, turn)
    check_stream(await live.done())
    assert await stop == 0
    assert not live.log.voided
    for other in others:
        assert not [who for who in identities(await history(product, other)) if who.startswith(f"{drained.pid}@")]
    [(attempt, _, identity)] = attempts(await history(product, session), "call_model")
    assert attempt == 1
    assert identity.startswith(f"{drained.pid}@")
    await check_rows(product.database)


async def test_stop_in_a_worker_that_drains(make_product: MakeProduct) -> None:
    """Stop is not taken for a shutdown: the partial text is kept, and the call is not made again."""
    product = await make_product(settings={"LONGHAUL_SHUTDOWN_GRACE": "30"})
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 1000 [delay=100]")
    await live.until_seen("text-delta", 3)
    [drained] = product.workers
    await product.start_worker()
    stop = asyncio.create_task(product.terminate(drained))
    await until(lambda: "drains" in drained.tail(), what="the worker drains")
    assert (await product.api.cancel(session)).status == 200
    log = check_stream(await live.done())
    assert await stop == 0
    assert log.count("abort") == 1
    found = await check_rows(product.database, answered=False)
    assert found.of(session, "assistant")[-1].content == log.text() != ""
    assert await product.servers.model.asked(log.turn_id) == {1: 1}
