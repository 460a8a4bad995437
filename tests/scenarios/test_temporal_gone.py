"""Temporal away: posts answer 503 meanwhile, streams that run go on, and the turn goes on when it is back."""

import asyncio
import time
from uuid import uuid4

from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import ProductOptions
from testkit.product import Product
from testkit.streamlog import StreamLog
from testkit.wait import until
from tests.scenarios.support import api_raised_nothing, next_message_works, same_as_stored

HEARTBEAT_TIMEOUT_S = 5.0
PRODUCT: ProductOptions = {
    "own_temporal": True,
    "settings": {
        "LONGHAUL_TEMPORAL_RPC_TIMEOUT": "2",
        "LONGHAUL_HEARTBEAT_TIMEOUT": f"{HEARTBEAT_TIMEOUT_S:g}",
        "LONGHAUL_MODEL_SMALL": "",
    },
}


async def refused(product: Product, session: str, route: str, message_id: str = "") -> None:
    body = {"message": "hello", "message_id": message_id} if message_id else {}
    answer = await product.api.http.post(f"/v1/sessions/{session}/{route}", json=body)
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert "Temporal" in answer.json()["detail"]


async def test_in_mid_stream(product: Product) -> None:
    """Deltas keep coming without it, and the last answer ends the turn. Rows can be read meanwhile."""
    session, other = await product.api.create_session(), await product.api.create_session()
    live = await product.api.open(session, "speak 400 [delay=20]")
    await live.until_seen("text-delta", 5)
    turn = live.log.turn_id
    ids = [str(uuid4()), str(uuid4())]
    with product.servers.model.paused():
        product.servers.temporal.kill()
        await asyncio.gather(
            refused(product, other, "messages", ids[0]),
            refused(product, other, "stream", ids[1]),
            refused(product, other, "cancel"),
        )
    seen = live.log.count("text-delta")
    await live.until_seen("text-delta", seen + 10)
    late = StreamLog()
    await product.api.resume(session, late, cut_after=20)
    assert (late.status, late.types[0]) == (200, "start")
    assert (await product.api.progress(session, turn))["status"] == "running"
    assert (await product.api.session(session))["id"] == session
    log = await live.done()
    assert (await product.api.progress(session, turn))["status"] == "completed"
    await product.servers.temporal.start()
    await same_as_stored(product, session, log, kinds=("message",))
    assert not log.voided
    assert await product.servers.model.asked(turn) == {1: 1}
    await product.api.resume(session, late)
    await same_as_stored(product, session, late)
    await works_again(product, other, ids)
    api_raised_nothing(product)


async def works_again(product: Product, session: str, ids: list[str]) -> None:
    """What was refused is taken when it is posted again under its id, and is one message."""

    async def taken(message_id: str) -> bool:
        return (await product.api.post(session, "hello", message_id)).status == 202

    for message_id in ids:
        await until(lambda: taken(message_id), what="the message is taken")  # noqa: B023
    await product.api.until_idle(session)
    await check_rows(product.database, {session: ids})
    await next_message_works(product, session)


async def test_while_a_timer_runs(product: Product) -> None:
    """A wait of the workflow's own outlives the server that counts it."""
    session = await product.api.create_session()
    live = await product.api.open(session, "wait 2 s and rounds 2")
    await live.until_seen("tool-output-available")
    product.servers.temporal.kill()
    gone = time.monotonic()
    await until(lambda: time.monotonic() - gone > 3, what="longer than the timer")
    await product.servers.temporal.start()
    log = await live.done()
    await same_as_stored(product, session, log)
    assert set((await product.servers.model.answered(log.turn_id)).values()) == {1}
    await next_message_works(product, session)


async def test_longer_than_a_heartbeat_may_take(product: Product) -> None:
    """When Temporal is back it takes the worker for dead and has the call made again; the first one gives way."""
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 200 [delay=20]")
    await live.until_seen("text-delta", 5)
    with product.servers.model.paused():
        product.servers.temporal.kill()
        gone = time.monotonic()
        await until(lambda: time.monotonic() - gone > HEARTBEAT_TIMEOUT_S + 1, what="it counts as dead")
        await product.servers.temporal.start()
    log = await live.done()
    found = await same_as_stored(product, session, log, kinds=("message",))
    assert found.turns[session][0].status == "completed"
    assert "booked" in [row.status for row in found.ledger]
    assert {row.round for row in found.ledger} == {1}
    await next_message_works(product, session)


async def test_a_worker_that_starts_before_it(product: Product) -> None:
    """It waits and says what for; SIGTERM ends it meanwhile; it works as soon as Temporal does."""
    [worker] = product.workers
    await product.terminate(worker)
    await product.servers.temporal.stop()
    waiting = await product.start_worker(ready=False)
    await until(lambda: "does not answer" in waiting.tail(), what="the worker says what it waits for")
    await product.terminate(waiting)
    waiting.start()
    await product.servers.temporal.start()
    await product.until_ready(waiting)
    session = await product.api.create_session()
    assert "42" in check_stream(await product.api.stream(session, "6*7")).text()
    await product.terminate(waiting)
    product.workers.remove(waiting)
