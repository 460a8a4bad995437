"""Every worker is down: a message is accepted, and answered when a worker is up."""

from longhaul.redis import BLOCK_S
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Backend
from testkit.wait import until
from tests.scenarios.support import same_as_stored


async def test_accepted_without_a_worker(make_product: MakeProduct, backend: Backend) -> None:
    product = await make_product(backend=backend, workers=0)
    session = await product.api.create_session()
    ids = ["6ba7b810-9dad-41d1-80b4-00c04fd430c8", "6ba7b811-9dad-41d1-80b4-00c04fd430c8"]
    turn = await product.api.start(session, "6*7", ids[0])
    assert await product.api.start(session, "and 1+1", ids[1]) == turn
    assert [message["id"] for message in await product.api.pending(session)] == ids
    assert (await product.api.progress(session, turn))["status"] == "running"
    worker = await product.start_worker()
    ended = await product.api.wait_for_turn(session, turn)
    assert ended["status"] == "completed"
    found = await check_rows(product.database, {session: ids})
    assert "42" in found.of(session, "assistant")[-1].content
    assert await product.terminate(worker) == 0


async def test_accepted_while_all_workers_are_stopped(make_product: MakeProduct) -> None:
    """Its stream waits in silence, longer than two reads of Redis, and is not taken for a broken one."""
    product = await make_product(settings={"LONGHAUL_REDIS_TIMEOUT": "0.5", "LONGHAUL_STREAM_KEEP_ALIVE": "1"})
    session = await product.api.create_session()
    check_stream(await product.api.stream(session, "1+2"))
    await product.terminate(product.workers[0])
    live = await product.api.open(session, "speak 30 [delay=10]")
    assert live.log.status == 200
    silent_reads = 4 * (BLOCK_S + 0.5)
    await until(lambda: live.log.comments >= silent_reads, what="keep-alive comments of four silent reads")
    assert live.log.parts() == [] or live.log.types == ["start"]
    await product.start_worker()
    log = await live.done()
    found = await same_as_stored(product, session, log)
    assert len(found.turns[session]) == 2
    assert log.count("text-delta") > 1
    assert log.last_id is not None
