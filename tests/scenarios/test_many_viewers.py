"""Many viewers of one turn: one connection to Redis for all of them, and all agree with the rows when Redis goes."""

import asyncio
from collections import Counter

import redis.asyncio

from longhaul.streams.feed import RANGES_AT_ONCE
from testkit.pool import ProductOptions
from testkit.product import Product
from testkit.streamlog import StreamLog
from testkit.wait import until
from tests.scenarios.support import api_raised_nothing, next_message_works, same_as_stored

PRODUCT: ProductOptions = {"own_redis": True}
VIEWERS = 25


async def commands(product: Product) -> Counter[str]:
    """How many connections to Redis have last been used for each command; `b`: how many wait in a blocking read."""
    client = redis.asyncio.Redis.from_url(product.servers.redis.url())
    try:
        connections = await client.client_list()
        return Counter(one["cmd"] for one in connections) + Counter(b=sum("b" in one["flags"] for one in connections))
    finally:
        await client.aclose()


async def test_one_connection_and_the_rows_when_it_breaks(product: Product) -> None:
    """Half of them come with a `Last-Event-ID`; then Redis is killed."""
    await next_message_works(product, await product.api.create_session())
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 150 [delay=15]")
    await live.until_seen("text-delta", 10)
    with product.servers.model.paused():
        cut = await product.api.resume(session, cut_after=8)
        logs = [StreamLog() for _ in range(VIEWERS)] + [StreamLog(events=list(cut.events)) for _ in range(VIEWERS)]
        watching = [asyncio.create_task(product.api.resume(session, log)) for log in logs]
        await until(lambda: all(log.last_id == live.log.last_id for log in logs), what="all have seen the same")

        async def one() -> bool:
            return (await commands(product))["b"] == 1

        await until(one, what="one connection waits for all of them")
        used = await commands(product)
        # One waits, one looks whether the stream is still there, and some have caught up.
        assert used["xread"] + used["xrange"] + used["exists"] <= 2 + RANGES_AT_ONCE < 2 * VIEWERS, used
        product.servers.redis.kill()
    for log in await asyncio.gather(*watching):
        await same_as_stored(product, session, log, kinds=("message",))
    log = await live.done()
    assert log.voided
    for watched in logs:
        assert watched.text() == log.text()
    api_raised_nothing(product)
    await product.servers.redis.start()
    await next_message_works(product, session)
