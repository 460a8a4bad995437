"""The writing end of a stream, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from longhaul.redis import connect
from longhaul.settings import load_settings
from longhaul.streams import scripts
from longhaul.streams.events import (
    FIELD,
    FINISH_ID,
    OUTCOME_ID,
    START_ID,
    UNSEALED_TTL_S,
    start_part,
    stream_key,
    writers_key,
)
from longhaul.streams.publisher import BATCH, StreamPublisher
from longhaul.streams.scripts import ActivityAttempt
from testkit.servers import RedisClusterServer, RedisServer, free_port
from testkit.wait import LIMIT_S, until

Part = dict[str, Any]
ABORT: Part = {"type": "abort"}


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator["Redis"]:
    client = connect(load_settings(redis_url=redis_server.url(0)))
    yield client
    await client.aclose()


@pytest.fixture
def turn_id() -> str:
    return str(uuid4())


def delta(text: str, part_id: str = "1", kind: str = "text") -> Part:
    return {"type": f"{kind}-delta", "id": part_id, "delta": text}


async def entries(redis: "Redis", turn_id: str) -> list[tuple[str, Part]]:
    found: list[Any] = await redis.xrange(stream_key(turn_id)) or []
    return [(key.decode(), orjson.loads(fields[FIELD])) for key, fields in found]


async def parts(redis: "Redis", turn_id: str) -> list[Part]:
    return [part for _, part in await entries(redis, turn_id)]


async def test_a_stream_from_its_start_to_its_end(redis: "Redis", turn_id: str) -> None:
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await publisher.begin()
        publisher.put({"type": "start-step"})
        publisher.put({"type": "finish-step"})
        assert 0 < await redis.ttl(stream_key(turn_id)) <= UNSEALED_TTL_S
        await publisher.seal([], ABORT, 60)
    found = await entries(redis, turn_id)
    assert [part for _, part in found] == [
        start_part(turn_id),
        {"type": "start-step"},
        {"type": "finish-step"},
        ABORT,
        {"type": "finish"},
    ]
    assert (found[0][0], found[-2][0], found[-1][0]) == (START_ID, OUTCOME_ID, FINISH_ID)
    assert 0 < await redis.ttl(stream_key(turn_id)) <= 60
    assert not publisher.broken


async def test_beginning_and_sealing_again_change_nothing(redis: "Redis", turn_id: str) -> None:
    for outcome in (ABORT, ABORT, {"type": "error", "errorText": "late"}, None):
        async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
            await publisher.begin()
            await publisher.seal([], outcome, 60)
            assert not publisher.broken
    assert await parts(redis, turn_id) == [start_part(turn_id), ABORT, {"type": "finish"}]


async def test_six_who_seal_at_once_seal_once(redis: "Redis", turn_id: str) -> None:
    assert await scripts.begin(redis, turn_id)
    publishers = [StreamPublisher(redis, turn_id, flush_s=0) for _ in range(6)]
    await asyncio.gather(*(publisher.seal([], ABORT, 60) for publisher in publishers))
    assert await parts(redis, turn_id) == [start_part(turn_id), ABORT, {"type": "finish"}]


async def test_nothing_follows_the_end(redis: "Redis", turn_id: str) -> None:
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await publisher.begin()
        await publisher.seal([], None, 60)
        await publisher.seal([{"type": "start-step"}], ABORT, 60)
        assert not publisher.broken, "a close_turn that is retried finds the stream whole and leaves it so"
        publisher.put({"type": "start-step"})
    assert await parts(redis, turn_id) == [start_part(turn_id), {"type": "finish"}]


async def test_deltas_that_come_fast_are_joined(redis: "Redis", turn_id: str) -> None:
    given = [
        delta("a"),
        delta("b"),
        delta("x", "2"),
        delta("c"),
        delta("r", "1", "reasoning"),
        {"type": "text-end", "id": "1"},
    ]
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await publisher.begin()
        for part in [*given, delta("d"), delta("e")]:
            publisher.put(part)
    assert (await parts(redis, turn_id))[1:] == [delta("ab"), *given[2:], delta("de")]
    assert given[0] == delta("a"), "what was handed in is not changed"


async def test_the_first_delta_is_prompt_and_the_rest_are_gathered(redis: "Redis", turn_id: str) -> None:
    """The first waits for nobody; what follows within `flush_s` is one entry."""
    pieces = [str(number % 10) for number in range(200)]
    async with StreamPublisher(redis, turn_id, flush_s=60) as publisher:
        await publisher.begin()
        publisher.put(delta("first"))

        async def written() -> bool:
            return len(await parts(redis, turn_id)) == 2

        await until(written, what="the first delta is written")
        for piece in pieces:
            publisher.put(delta(piece))
            await asyncio.sleep(0)
    found = (await parts(redis, turn_id))[1:]
    assert [part["delta"] for part in found] == ["first", "".join(pieces)]


async def test_order_is_kept_over_many_batches(redis: "Redis", turn_id: str) -> None:
    given = [{"type": "data-x", "data": {"n": number}} for number in range(BATCH * 2 + 7)]
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await publisher.begin()
        for part in given:
            publisher.put(part)
    assert (await parts(redis, turn_id))[1:] == given


async def test_a_stream_that_vanishes_is_withdrawn_for_good(redis: "Redis", turn_id: str) -> None:
    """A flushed Redis must not get a stream that begins in the middle, nor one that begins anew."""
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await publisher.begin()
        publisher.put({"type": "start-step"})
        await publisher.drain()
        await redis.delete(stream_key(turn_id), writers_key(turn_id))
        publisher.put(delta("a"))
        await publisher.drain()
        assert publisher.broken
        publisher.put(delta("b"))
        await publisher.seal([], None, 60)
    assert await entries(redis, turn_id) == [(FINISH_ID, {"type": "withdrawn"})]
    async with StreamPublisher(redis, turn_id, flush_s=0) as later:
        await later.begin()
        assert later.broken
        await later.seal([], ABORT, 60)
    assert await entries(redis, turn_id) == [(FINISH_ID, {"type": "withdrawn"})]


async def test_sealing_a_lost_stream_withdraws_it(redis: "Redis", turn_id: str) -> None:
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await publisher.seal([], ABORT, 60)
        assert publisher.broken
    assert await parts(redis, turn_id) == [{"type": "withdrawn"}]


async def test_a_broken_stream_is_withdrawn_when_it_is_sealed(redis: "Redis", turn_id: str) -> None:
    assert await scripts.begin(redis, turn_id)
    async with StreamPublisher(redis, turn_id, flush_s=0, published=False) as publisher:
        assert publisher.broken
        publisher.put(delta("a"))
        await publisher.seal([], None, 60)
    assert await parts(redis, turn_id) == [{"type": "withdrawn"}]


async def test_a_sealed_stream_cannot_be_withdrawn(redis: "Redis", turn_id: str) -> None:
    """Clients have seen its end, and it is whole."""
    assert await scripts.begin(redis, turn_id)
    for published in (True, False):
        async with StreamPublisher(redis, turn_id, flush_s=0, published=published) as publisher:
            await publisher.seal([], None, 60)
    assert await parts(redis, turn_id) == [start_part(turn_id), {"type": "finish"}]


async def test_nothing_is_written_into_a_withdrawn_stream(redis: "Redis", turn_id: str) -> None:
    async with StreamPublisher(redis, turn_id, flush_s=0) as first, StreamPublisher(redis, turn_id, flush_s=0) as other:
        await first.begin()
        other.put({"type": "start-step"})
        await other.drain()
        await first.withdraw()
        for _ in range(2):
            other.put(delta("late"))
            await other.drain()
        assert other.broken
    assert await parts(redis, turn_id) == [{"type": "withdrawn"}]


async def test_a_stream_has_a_limit_in_bytes(redis: "Redis", turn_id: str) -> None:
    """Beyond it nothing is kept: readers get the turn from its rows."""
    async with StreamPublisher(redis, turn_id, flush_s=0, max_bytes=1_000) as publisher:
        await publisher.begin()
        publisher.put({"type": "data-x", "data": {"text": "x" * 800}})
        await publisher.drain()
        assert not publisher.broken
    async with StreamPublisher(redis, turn_id, flush_s=0, max_bytes=1_000) as publisher:
        publisher.put({"type": "data-x", "data": {"text": "x" * 800}})
        await publisher.drain()
        assert publisher.broken
    assert await parts(redis, turn_id) == [{"type": "withdrawn"}]


async def test_a_part_of_one_name_is_written_once(redis: "Redis", turn_id: str) -> None:
    """Whichever attempt or activity is first: the output of a tool call is shown once."""
    outputs = [{"type": "data-x", "data": {"by": number}} for number in range(3)]
    assert await scripts.begin(redis, turn_id)
    for number, output in enumerate(outputs):
        async with StreamPublisher(redis, turn_id, flush_s=0, attempt=ActivityAttempt(f"run:{number}")) as publisher:
            publisher.put(output, once="output:1:c")
            publisher.put(output, once=f"output:1:{number}")
            await publisher.drain()
            assert not publisher.broken
    assert (await parts(redis, turn_id))[1:] == [outputs[0], *outputs]


async def test_a_stream_that_changed_is_not_sealed(redis: "Redis", turn_id: str) -> None:
    """Between the look at a stream and its end, an attempt that was taken for dead may write."""
    closing, zombie = (StreamPublisher(redis, turn_id, flush_s=0, attempt=ActivityAttempt(name)) for name in "ab")
    async with closing, zombie:
        await closing.begin()
        known = await closing.content()
        zombie.put({"type": "start-step"})
        await zombie.drain()
        assert not await closing.seal([], ABORT, 60, behind=known.newest_id)
        known = await closing.content()
        assert known.parts[-1] == {"type": "start-step"}
        assert await closing.seal([{"type": "finish-step"}], ABORT, 60, behind=known.newest_id)
        zombie.put(delta("late"))
    found = await parts(redis, turn_id)
    assert found == [start_part(turn_id), {"type": "start-step"}, {"type": "finish-step"}, ABORT, {"type": "finish"}]


async def test_a_redis_set_back_to_an_older_state_gets_no_stream_with_a_hole(tmp_path: Path, turn_id: str) -> None:
    """A snapshot, more text, a crash: the Redis that comes back has only the beginning of the text."""
    server = RedisServer(tmp_path)
    await server.start()
    client = connect(load_settings(redis_url=server.url(0)))
    other = str(uuid4())

    async def crash() -> None:
        server.kill()
        await server.start()
        await server.until_healthy()

    try:
        running = StreamPublisher(client, other, flush_s=0)
        async with running, StreamPublisher(client, turn_id, flush_s=0) as publisher:
            for one in (publisher, running):
                await one.begin()
            publisher.put(delta("kept"))
            running.put(delta("kept"))
            await publisher.drain()
            await running.drain()
            await client.save()
            publisher.put(delta("lost"))
            running.put(delta("lost"))
            await publisher.drain()
            await running.drain()
            await crash()
            assert await parts(client, turn_id) == [start_part(turn_id), delta("kept")]
            # The same activity goes on, and in the other turn another one does.
            running.put(delta("more"))
        async with StreamPublisher(client, turn_id, flush_s=0) as publisher:
            publisher.put(delta("more"))
        assert publisher.broken
        assert running.broken
        for turn in (turn_id, other):
            assert await parts(client, turn) == [{"type": "withdrawn"}]
    finally:
        await client.aclose()
        await server.stop()


async def test_the_keys_of_a_turn_share_a_slot(tmp_path: Path, turn_id: str) -> None:
    """A node of a Redis Cluster refuses scripts whose keys lie in different slots."""

    server = RedisClusterServer(tmp_path)
    await server.start()
    client = connect(load_settings(redis_url=server.url(0)))
    try:
        async with StreamPublisher(client, turn_id, flush_s=0, attempt=ActivityAttempt("run:1", 2)) as publisher:
            await publisher.begin()
            assert await publisher.open_step() == [start_part(turn_id)]
            publisher.put(delta("a"), once="a")
            await publisher.seal([], ABORT, 60)
            assert not publisher.broken
        assert await parts(client, turn_id) == [start_part(turn_id), delta("a"), ABORT, {"type": "finish"}]
        with pytest.raises(ResponseError, match="slot"):
            await client.mget("one", "two")
    finally:
        await client.aclose()
        await server.stop()


async def test_a_cancelled_activity_leaves_no_writer(tmp_path: Path, turn_id: str) -> None:
    """Redis hangs as Stop arrives: what was queued is not written later, when `close_turn` has looked already."""
    server = RedisServer(tmp_path)
    await server.start()
    client = connect(load_settings(redis_url=server.url(0), redis_timeout=180))
    try:
        assert await scripts.begin(client, turn_id)
        server.pause()

        async def publishing() -> None:
            async with publisher:
                publisher.put({"type": "start-step"})
                publisher.put({"type": "finish-step"})

        before = asyncio.all_tasks()
        publisher = StreamPublisher(client, turn_id, flush_s=0)
        task = asyncio.create_task(publishing())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, LIMIT_S)
        assert publisher.broken
        assert asyncio.all_tasks() - before == set()
    finally:
        server.resume()
        await client.aclose()
        await server.stop()


@pytest.mark.parametrize("bad", [{"type": "data-x", "data": {"n": 2**70}}, delta("\ud800")])
async def test_a_part_that_is_no_json_breaks_the_stream_and_holds_nobody_up(
    redis: "Redis", turn_id: str, bad: Part
) -> None:
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        await publisher.begin()
        publisher.put(bad)
        await asyncio.wait_for(publisher.drain(), LIMIT_S)
        assert publisher.broken


async def test_a_key_of_another_kind_breaks_the_stream(redis: "Redis", turn_id: str) -> None:
    await redis.set(stream_key(turn_id), "x")
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        publisher.put(delta("a"))
        await publisher.drain()
        assert publisher.broken


async def test_without_redis_everything_returns_at_once(turn_id: str) -> None:
    client = connect(load_settings(redis_url=f"redis://127.0.0.1:{free_port()}/0", redis_timeout=0.5))
    async with asyncio.timeout(LIMIT_S):
        async with StreamPublisher(client, turn_id, flush_s=0) as publisher:
            await publisher.begin()
            publisher.put(delta("a"))
            await publisher.drain()
            assert publisher.broken
            assert await publisher.open_step() == []
            await publisher.seal([], ABORT, 60)
    await client.aclose()


async def test_a_silent_redis_breaks_the_stream_within_its_timeout(turn_id: str) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = connect(load_settings(redis_url=f"redis://127.0.0.1:{port}/0", redis_timeout=0.2))
    async with StreamPublisher(client, turn_id, flush_s=0) as publisher:
        publisher.put(delta("a"))
        await until(lambda: publisher.broken, what="the stream is broken")
    await client.aclose()
    server.close()


@pytest.mark.parametrize("more", [0, 3, BATCH, BATCH + 1])
async def test_open_step_reaches_back_to_the_newest_step(redis: "Redis", turn_id: str, more: int) -> None:
    step: Part = {"type": "start-step"}
    rest = [{"type": "data-x", "data": {"n": number}} for number in range(more)]
    async with StreamPublisher(redis, turn_id, flush_s=0) as publisher:
        assert await publisher.open_step() == []
        await publisher.begin()
        assert await publisher.open_step() == [start_part(turn_id)]
        for part in [step, delta("old"), step, *rest]:
            publisher.put(part)
        await publisher.drain()
        assert await publisher.open_step() == [step, *rest]


async def test_a_try_that_was_replaced_writes_nothing_more(redis: "Redis", turn_id: str) -> None:
    """Whatever order they wake up in: the latest try that has looked at the stream is the only one that writes."""
    first, second, third = (
        StreamPublisher(redis, turn_id, flush_s=0, attempt=ActivityAttempt("run:2", n)) for n in (1, 2, 3)
    )
    async with first, second, third:
        await first.begin()
        first.put(delta("one"))
        await first.drain()
        assert await third.open_step() == [start_part(turn_id), delta("one")]
        assert await second.open_step() == []
        for publisher in (first, second, third):
            publisher.put(delta(str(publisher.broken)))
            await publisher.drain()
        assert [first.broken, second.broken, third.broken] == [True, True, False]
        await third.seal([], None, 60)
        await first.seal([], ABORT, 60)
        await second.seal([], ABORT, 60)
    assert await parts(redis, turn_id) == [start_part(turn_id), delta("one"), delta("False"), {"type": "finish"}]
    other = StreamPublisher(redis, turn_id, flush_s=0, attempt=ActivityAttempt("another run:2", 1))
    async with other:
        assert await other.open_step() != [], "activities of a continued turn are numbered anew"
