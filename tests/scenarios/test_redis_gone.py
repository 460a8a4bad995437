"""Redis killed, flushed, hung, or down from the start: turns finish, posts are taken, streams go on from rows."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from longhaul.streams.events import FINISH_ID
from longhaul.streams.reader import BEGINNING
from testkit.pool import ProductOptions
from testkit.product import Product
from testkit.streamlog import StreamLog
from testkit.wait import LIMIT_S
from tests.scenarios.support import api_raised_nothing, next_message_works, same_as_stored

PRODUCT: ProductOptions = {"own_redis": True, "settings": {"LONGHAUL_REDIS_TIMEOUT": "0.5"}}


async def kill(product: Product) -> None:
    product.servers.redis.kill()


async def flush(product: Product) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", product.servers.redis.port)
    writer.write(b"FLUSHALL\r\n")
    assert await reader.readline() == b"+OK\r\n"
    writer.close()


async def hang(product: Product) -> None:
    product.servers.redis.pause()


async def mend(product: Product) -> None:
    """Redis is back, empty if it had been killed."""
    redis = product.servers.redis
    redis.resume()
    if not redis.running:
        await redis.start()
    await redis.until_healthy()


Fault = Callable[[Product], Awaitable[None]]
FAULTS: list[Fault] = [kill, flush, hang]


async def works_meanwhile(product: Product, session: str) -> None:
    """Posts are taken, pages and progress read, other sessions answered."""
    turn = await product.api.start(session, "and 2+2")
    assert (await product.api.progress(session, turn))["turn_id"] == turn
    page = await product.api.session(session)
    assert page["active_turn"]["turn_id"] == turn
    assert (await product.api.call("GET", f"/sessions/{session}/messages/pending")).status == 200
    other = await product.api.create_session()
    assert (await product.api.post(other, "hello")).status == 202


@pytest.mark.parametrize("fault", FAULTS)
async def test_in_mid_stream(product: Product, fault: Fault) -> None:
    """The turn ends, its client gets what is stored, one that comes later too; then Redis is back and used again."""
    session = await product.api.create_session()
    live = await product.api.open(session, "rounds 2 and wait 3 s and speak 100 [delay=10]")
    await live.until_seen("tool-input-available", 2)
    with product.servers.model.paused():
        await fault(product)
        late = StreamLog()
        reading = asyncio.create_task(product.api.resume(session, late))
        await works_meanwhile(product, session)
    log = await live.done()
    await asyncio.wait_for(reading, LIMIT_S)
    for seen in (log, late):
        found = await same_as_stored(product, session, seen)
        assert seen.events[-2].type == "finish"
        assert set(seen.outputs()) == {row.tool_call_id for row in found.of(session, "tool")}
    assert (await product.api.wait_for_turn(session, log.turn_id))["status"] == "completed"
    assert len(found.turns[session]) == 1
    await mend(product)
    await next_message_works(product, session)
    api_raised_nothing(product)


@pytest.mark.parametrize("fault", FAULTS)
async def test_in_the_middle_of_a_text(product: Product, fault: Fault) -> None:
    """Half a text is shown when Redis fails: the stream voids it and sends the whole text from the row."""
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 150 [delay=15]")
    await live.until_seen("text-delta", 10)
    with product.servers.model.paused():
        await fault(product)
    log = await live.done()
    found = await same_as_stored(product, session, log, kinds=("message",))
    assert log.voided
    assert log.text().endswith("w150")
    assert await product.servers.model.asked(log.turn_id) == {1: 1}, "the model is not asked again for Redis' sake"
    assert found.turns[session][0].status == "completed"
    await mend(product)
    await next_message_works(product, session)


@pytest.mark.parametrize("fault", [kill, hang])
async def test_from_the_start(product: Product, fault: Fault) -> None:
    """A turn that never had a stream."""
    await fault(product)
    session = await product.api.create_session()
    live = await product.api.open(session, "2*3 and wait 1 s")
    assert live.log.status == 200
    log = await live.done()
    ids = [event.id for event in log.events if event.id]
    assert ids == [FINISH_ID], "rows have no event ids to resume from: a browser asks from the beginning"
    await same_as_stored(product, session, log)
    cut = await product.api.resume(session, StreamLog(after=BEGINNING))
    await same_as_stored(product, session, cut)
    # Its workflow still tries to seal the stream. Until it has ended, a client is shown the turn again.
    await product.api.until_idle(session)
    assert (await product.api.resume(session, StreamLog(after=FINISH_ID))).status == 204
    await mend(product)
    await next_message_works(product, session)
    api_raised_nothing(product)


async def test_back_in_the_middle_of_a_turn(product: Product) -> None:
    """Redis was away for a moment and is empty: the turn that it missed a part of stays with rows to its end."""
    session = await product.api.create_session()
    live = await product.api.open(session, "rounds 3 and wait 2 s and speak 60 [delay=10]")
    await live.until_seen("tool-input-available", 2)
    product.servers.redis.kill()
    await mend(product)
    late = await product.api.resume(session)
    log = await live.done()
    for seen in (log, late):
        await same_as_stored(product, session, seen)
    await next_message_works(product, session)


async def test_stop_without_redis(product: Product) -> None:
    """Stop needs Temporal and rows alone."""
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 2000 [delay=20]")
    await live.until_seen("text-delta", 5)
    await kill(product)
    assert (await product.api.cancel(session)).body["status"] == "cancelled"
    log = await live.done()
    assert (log.count("abort"), log.count("finish")) == (1, 1)
    await mend(product)
    await next_message_works(product, session)
