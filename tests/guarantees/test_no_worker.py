"""With every worker down a message is accepted at once, and answered when one comes up."""

import time

from testkit.checks import check_rows
from testkit.pool import MakeProduct
from testkit.product import Backend

#: Seconds; a tenth of that on an idle machine, but tests share theirs.
AT_ONCE = 4.0


async def test_accepted_without_a_worker(make_product: MakeProduct, backend: Backend) -> None:
    product = await make_product(backend, workers=0)
    session = await product.api.create_session()
    ids = ["6ba7b810-9dad-41d1-80b4-00c04fd430c8", "6ba7b811-9dad-41d1-80b4-00c04fd430c8"]
    began = time.monotonic()
    turn = await product.api.start(session, "6*7", ids[0])
    assert await product.api.start(session, "and 1+1", ids[1]) == turn
    assert time.monotonic() - began < AT_ONCE
    assert [message["id"] for message in await product.api.pending(session)] == ids
    assert (await product.api.progress(session, turn))["status"] == "running"
    worker = await product.start_worker()
    ended = await product.api.wait_for_turn(session, turn)
    assert ended["status"] == "completed"
    found = await check_rows(product.database, {session: ids})
    assert "42" in found.of(session, "assistant")[-1].content
    assert await product.terminate(worker) == 0


async def test_accepted_while_all_workers_are_stopped(make_product: MakeProduct) -> None:
    product = await make_product()
    session = await product.api.create_session()
    first = await product.api.start(session, "1+2")
    await product.api.wait_for_turn(session, first)
    await product.api.until_idle(session)
    await product.terminate(product.workers[0])
    live = await product.api.open(session, "2+3")
    assert live.log.status == 200
    await product.start_worker()
    log = await live.done()
    found = await check_rows(product.database)
    assert len(found.turns[session]) == 2
    assert log.text() == found.of(session, "assistant")[-1].content
