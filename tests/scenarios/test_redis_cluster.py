"""A Redis Cluster of two nodes: streams, Stop and counters use both, and a node that dies costs no text."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio
from redis.crc import key_slot

from longhaul.streams.events import stream_key
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.servers import HOST, RedisClusterServer
from tests.scenarios.support import api_raised_nothing, same_as_stored

SLOTS = 16_384
HALF = SLOTS // 2


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[tuple[RedisClusterServer, RedisClusterServer]]:
    first = RedisClusterServer(tmp_path / "first", range(HALF))
    second = RedisClusterServer(tmp_path / "second", range(HALF, SLOTS))
    async with AsyncExitStack() as stack:
        for node in (first, second):
            await node.start()
            stack.push_async_callback(node.stop)
        await first.meet(second)
        await first.until_in_order()
        await second.until_in_order()
        yield first, second


async def keys_of(node: RedisClusterServer) -> list[str]:
    async with redis.asyncio.Redis(host=HOST, port=node.port, decode_responses=True) as client:
        return [key async for key in client.scan_iter()]


async def test_a_cluster_of_two_nodes(
    make_product: MakeProduct, nodes: tuple[RedisClusterServer, RedisClusterServer]
) -> None:
    first, second = nodes
    settings = {"REDIS_URL": first.url(0), "LONGHAUL_REDIS_CLUSTER": "true", "LONGHAUL_REDIS_TIMEOUT": "0.5"}
    product = await make_product(settings={**settings, "LONGHAUL_HEARTBEAT_INTERVAL": "10"})
    api = product.api
    on: dict[bool, str] = {}  # a session whose turn's stream is on the second node, and one whose is not
    while len(on) < 2:
        session = await api.create_session()
        live = await api.open(session, "6*7 and speak 20")
        log = await live.done()
        found = await same_as_stored(product, session, log)
        assert set(log.outputs()) == {row.tool_call_id for row in found.of(session, "tool")}
        assert not log.voided
        on[key_slot(stream_key(log.turn_id).encode()) >= HALF] = session
    for node in nodes:
        assert any("stream" in key for key in await keys_of(node)), "its half of the streams"

    session = on[True]
    live = await api.open(session, "speak 200 [delay=50]")
    await live.until_seen("text-delta", 3)
    cancelled = await api.cancel(session)
    assert cancelled.body["status"] == "cancelled"
    assert "abort" in (await live.done()).types

    live = await api.open(session, "speak 100 [delay=20]")
    await live.until_seen("text-delta", 3)
    second.kill()
    log = await live.done()
    check_stream(log)
    assert log.text().endswith("w100")
    rows = [row for row in await api.messages(session) if row["turn_id"] == log.turn_id and row["role"] == "assistant"]
    assert [row["content"] for row in rows] == [log.text()]
    for one in on.values():
        await api.wait_for_turn(one, await api.start(one, "1+1"))
    api_raised_nothing(product)
