"""One reader for all viewers of all turns of a process, on a real Redis of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from longhaul.redis import connect_for_reading
from longhaul.settings import load_settings
from longhaul.streams import feed, reader
from longhaul.streams.events import FIELD, FINISH_ID, START_ID, Part, encode, start_part, stream_key
from longhaul.streams.feed import BATCH, KEPT_BYTES, StreamLostError, TurnFeeds, _Reader
from longhaul.streams.reader import StreamReader
from longhaul.streams.viewer import ViewerState
from testkit.servers import RedisClusterServer, RedisServer
from testkit.wait import until

FINISH: Part = {"type": "finish"}
SIZE = 2_000


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    server.resume()
    await server.stop()


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator["Redis"]:
    client = connect_for_reading(load_settings(redis_url=server.url(0)))
    yield client
    await client.aclose()


@pytest.fixture
async def feeds(redis: "Redis") -> AsyncIterator[TurnFeeds]:
    feeds = TurnFeeds(redis)
    yield feeds
    await feeds.aclose()


class Viewer:
    """Follows a turn from its start, or from behind what it has."""

    def __init__(self, feeds: TurnFeeds, turn_id: str, stack: ExitStack, after: str = "") -> None:
        self.state = ViewerState()
        self.feed = stack.enter_context(feeds.follow(turn_id))
        self._reader = StreamReader(feeds, self.feed, self.state)
        self._after = after
        self.ids: list[bytes] = []

    async def read(self) -> None:
        if self._after:
            assert await self._reader.skip_to(self._after)
            self._after = ""
        self.ids += [entry_id for entry_id, _ in await self._reader.read()]

    async def to_the_end(self) -> "list[bytes]":
        async with asyncio.timeout(30):
            while not self.state.finished:
                await self.read()
        return self.ids


async def add(redis: "Redis", turn_id: str, *parts: Part) -> list[bytes]:
    fixed = {"start": START_ID, "finish": FINISH_ID}
    added: list[Any] = [
        await redis.xadd(stream_key(turn_id), {FIELD: encode(part)}, id=fixed.get(part["type"], "*")) for part in parts
    ]
    return added


def delta(size: int = 5) -> Part:
    return {"type": "text-delta", "id": "1.1.0", "delta": "x" * size}


async def blocked(redis: "Redis") -> int:
    """How many connections wait in a blocking read."""
    return sum("b" in client["flags"] for client in await redis.client_list())


async def test_many_viewers_and_turns_take_one_connection(redis: "Redis", feeds: TurnFeeds) -> None:
    turns = [str(uuid4()) for _ in range(3)]
    with ExitStack() as stack:
        viewers = [Viewer(feeds, turn_id, stack) for turn_id in turns for _ in range(20)]
        ids = {turn_id: await add(redis, turn_id, start_part(turn_id)) for turn_id in turns}
        reading = [asyncio.create_task(viewer.to_the_end()) for viewer in viewers]
        await until(lambda: all(viewer.ids for viewer in viewers), what="all have seen the start")
        for turn_id in turns:
            ids[turn_id] += await add(redis, turn_id, *(delta() for _ in range(50)))

        async def one() -> bool:
            return await blocked(redis) == 1

        await until(one, what="one connection waits")
        for turn_id in turns:
            ids[turn_id] += await add(redis, turn_id, FINISH)
        for viewer, seen in zip(viewers, await asyncio.gather(*reading), strict=True):
            assert seen == ids[viewer.feed.turn_id]


async def test_a_turn_that_comes_while_another_is_silent_is_read_at_once(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is blocked in a read that does not have the new turn's stream, and that would take very long."""
    for module in (feed, reader):
        monkeypatch.setattr(module, "BLOCK_S", 1_000)
    redis = connect_for_reading(load_settings(redis_url=server.url(0)))
    feeds = TurnFeeds(redis)
    silent, new = str(uuid4()), str(uuid4())
    with ExitStack() as stack:
        waiting = asyncio.create_task(Viewer(feeds, silent, stack).read())

        async def reads() -> bool:
            return await blocked(redis) == 1

        await until(reads, what="the reader waits")
        ids = await add(redis, new, start_part(new), FINISH)
        assert await Viewer(feeds, new, stack).to_the_end() == ids
        assert not waiting.done()
        waiting.cancel()
    await feeds.aclose()
    await redis.aclose()


async def test_a_slow_viewer_misses_nothing_and_the_feed_stays_small(redis: "Redis", feeds: TurnFeeds) -> None:
    turn_id = str(uuid4())
    ids = await add(redis, turn_id, start_part(turn_id))
    with ExitStack() as stack:
        fast, slow = Viewer(feeds, turn_id, stack), Viewer(feeds, turn_id, stack)
        await asyncio.gather(fast.read(), slow.read())
        for _ in range(20):
            ids += await add(redis, turn_id, *(delta(SIZE) for _ in range(20)))
            while fast.ids != ids:
                await fast.read()
            assert fast.feed.kept_bytes < KEPT_BYTES + BATCH * 2 * SIZE
        assert slow.feed.number_behind(slow.ids[-1]) is None, "the feed still has all that the slow one wants"
        late = Viewer(feeds, turn_id, stack)
        resumed = Viewer(feeds, turn_id, stack, after=ids[30].decode())
        ids += await add(redis, turn_id, FINISH)
        assert await slow.to_the_end() == ids
        assert await late.to_the_end() == ids
        assert await resumed.to_the_end() == ids[31:]
        assert await fast.to_the_end() == ids


async def test_the_reader_ends_when_its_last_viewer_leaves(redis: "Redis", feeds: TurnFeeds) -> None:
    turn_id = str(uuid4())
    await add(redis, turn_id, start_part(turn_id))
    with ExitStack() as stack:
        viewers = [Viewer(feeds, turn_id, stack) for _ in range(2)]
        for viewer in viewers:
            await viewer.read()

    async def none() -> bool:
        return await blocked(redis) == 0

    await until(none, what="nothing is read any more")
    with ExitStack() as stack:
        again = Viewer(feeds, turn_id, stack)
        await again.read()
        assert len(again.ids) == 1


async def test_a_fault_sends_all_viewers_away_and_later_ones_read_again(
    server: RedisServer, redis: "Redis", feeds: TurnFeeds
) -> None:
    turn_id = str(uuid4())
    await add(redis, turn_id, start_part(turn_id))
    with ExitStack() as stack:
        viewers = [Viewer(feeds, turn_id, stack) for _ in range(5)]
        reading = [asyncio.create_task(viewer.to_the_end()) for viewer in viewers]
        await until(lambda: all(viewer.ids for viewer in viewers), what="all have seen the start")
        server.kill()
        for result in await asyncio.gather(*reading, return_exceptions=True):
            assert isinstance(result, StreamLostError)
        await server.start()
        ids = await add(redis, turn_id, start_part(turn_id), FINISH)
        assert await Viewer(feeds, turn_id, stack).to_the_end() == ids


async def test_a_cluster_gets_a_reader_for_each_turn(tmp_path: Path) -> None:
    server = RedisClusterServer(tmp_path)
    await server.start()
    client = connect_for_reading(load_settings(redis_url=server.url(0)))
    feeds = TurnFeeds(client)
    try:
        turns = [str(uuid4()) for _ in range(4)]
        with ExitStack() as stack:
            viewers = [Viewer(feeds, turn_id, stack) for turn_id in turns for _ in range(3)]
            reading = [asyncio.create_task(viewer.to_the_end()) for viewer in viewers]
            ids = {turn_id: await add(client, turn_id, start_part(turn_id), FINISH) for turn_id in turns}
            for viewer, seen in zip(viewers, await asyncio.gather(*reading), strict=True):
                assert seen == ids[viewer.feed.turn_id]
    finally:
        await feeds.aclose()
        await client.aclose()
        await server.stop()


async def test_a_read_for_viewers_who_left_is_not_for_those_who_come(
    feeds: TurnFeeds, redis: "Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is still behind all that the first viewer had, when a second one comes who has less."""

    async def not_yet(*_: object) -> None:
        """The reader goes on to wait for what the first viewer lacked."""

    monkeypatch.setattr(_Reader, "_wake", not_yet)
    turn_id = str(uuid4())
    ids = await add(redis, turn_id, start_part(turn_id), delta(), delta())
    with ExitStack() as stack:
        first = Viewer(feeds, turn_id, stack)
        while first.ids != ids:
            await first.read()
        await until(lambda: first.feed.newest == ids[-1] and feeds._reader._blocked, what="the reader waits")
    with ExitStack() as stack:
        second = Viewer(feeds, turn_id, stack, after=ids[0].decode())
        reading = asyncio.create_task(second.to_the_end())
        await until(lambda: second.feed.newest is not None, what="the second viewer waits")
        rest = await add(redis, turn_id, delta(), FINISH)
        assert await reading == [*ids[1:], *rest]
