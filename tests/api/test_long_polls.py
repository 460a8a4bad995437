"""Polls that wait: they share their looks at a turn, and its stream wakes them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from api import long_polls
from api.long_polls import LongPolls, View
from longhaul.contracts import Progress, TurnStatus
from longhaul.redis import connect_for_reading
from longhaul.settings import load_settings
from longhaul.streams.events import FIELD, Part, encode, stream_key
from longhaul.streams.feed import TurnFeeds
from testkit.servers import RedisServer
from testkit.wait import until

POLLS = 50
NEVER = 1000.0


class Lookup:
    """A `TurnLookup` that counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.round = 0
        self.turn_id = str(uuid4())

    async def progress(self, session_id: str, turn_id: str) -> Progress:
        self.asked += 1
        found = self.round
        await asyncio.sleep(0.01)  # as long as Temporal may take
        return Progress(
            turn_id=turn_id,
            session_id=session_id,
            status=TurnStatus.RUNNING,
            round=found,
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
        )

    async def with_texts(self, progress: Progress) -> Progress:
        return progress


@pytest.fixture
def lookup() -> Lookup:
    return Lookup()


@pytest.fixture
async def redis_url(tmp_path: Path) -> AsyncIterator[str]:
    server = RedisServer(tmp_path)
    await server.start()
    yield server.url(0)
    await server.stop()


MakePolls = Callable[[str], LongPolls]


@pytest.fixture
async def make_polls(lookup: Lookup) -> AsyncIterator[MakePolls]:
    made = []

    def make(url: str) -> LongPolls:
        feeds = TurnFeeds(connect_for_reading(load_settings(redis_url=url)))
        made.append(feeds)
        return LongPolls(cast("Any", lookup), feeds)

    yield make
    for feeds in made:
        await feeds.aclose()
        await feeds.redis.aclose()


async def stays() -> bool:
    return False


def poll(polls: LongPolls, lookup: Lookup, *known: str, wait: float = 60) -> "asyncio.Task[View]":
    return asyncio.create_task(polls.changed("session", lookup.turn_id, set(known), wait, stays))


async def publish(polls: LongPolls, lookup: Lookup, part: Part) -> None:
    await polls._feeds.redis.xadd(stream_key(lookup.turn_id), {FIELD: encode(part)})


def reads(polls: LongPolls, lookup: Lookup) -> bool:
    feed = polls._feeds._feeds.get(lookup.turn_id)
    return feed is not None and feed.newest is not None


async def test_polls_share_their_looks_and_the_stream_wakes_them(
    make_polls: MakePolls, lookup: Lookup, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOOK_AFTER_S", "LOOK_AT_LEAST_EVERY_S"):
        monkeypatch.setattr(long_polls, name, NEVER)
    polls = make_polls(redis_url)
    tag = (await polls.now("session", lookup.turn_id)).tag
    waiting = [poll(polls, lookup, *((tag,) if number % 2 else ())) for number in range(POLLS)]
    await until(lambda: reads(polls, lookup), what="the stream is read")
    asked = lookup.asked
    assert asked <= 5, "each poll has looked for itself"
    await publish(polls, lookup, {"type": "text-delta", "id": "1", "delta": "x"})
    lookup.round = 1
    await publish(polls, lookup, {"type": "start-step"})
    views = await asyncio.gather(*waiting)
    assert {view.tag for view in views} != {tag}
    assert len({view.body for view in views}) == 1
    assert lookup.asked <= asked + 3


async def test_a_message_of_this_process_wakes_them(
    make_polls: MakePolls, lookup: Lookup, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOOK_AFTER_S", "LOOK_AT_LEAST_EVERY_S"):
        monkeypatch.setattr(long_polls, name, NEVER)
    polls = make_polls(redis_url)
    waiting = poll(polls, lookup)
    await until(lambda: reads(polls, lookup), what="the stream is read")
    lookup.round = 1
    polls._feeds.nudge(lookup.turn_id)
    assert '"round":1' in (await waiting).body


@pytest.mark.parametrize("away", [False, True])
async def test_what_the_stream_does_not_show_is_seen_too(
    make_polls: MakePolls, lookup: Lookup, redis_url: str, away: bool
) -> None:
    polls = make_polls("redis://127.0.0.1:1/0" if away else redis_url)
    waiting = [poll(polls, lookup) for _ in range(POLLS)]
    await until(lambda: lookup.asked >= 2, what="they have looked again")
    lookup.round = 1
    for view in await asyncio.gather(*waiting):
        assert '"round":1' in view.body


async def test_a_poll_that_knows_more_than_a_recent_look_gets_a_new_one(
    make_polls: MakePolls, lookup: Lookup, redis_url: str
) -> None:
    """Another process has told this client the newest already."""
    polls = make_polls(redis_url)
    waiting = poll(polls, lookup)
    await until(lambda: reads(polls, lookup), what="a look has been made")
    lookup.round = 1
    with polls._feeds.follow(lookup.turn_id) as feed:
        newest = (await polls._view("session", feed.turn_id)).tag
    assert (await poll(polls, lookup, newest, wait=0.1)).tag == newest
    await waiting
