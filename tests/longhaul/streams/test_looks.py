"""Looks that several callers share."""

import asyncio
import time

import pytest

from longhaul.streams.looks import SharedLooks
from testkit.wait import until


class Source:
    """Something slow whose looks are counted."""

    def __init__(self) -> None:
        self.looks = 0
        self.fails = False
        self.go_on = asyncio.Event()

    async def __call__(self) -> int:
        self.looks += 1
        number = self.looks
        await self.go_on.wait()
        if self.fails:
            raise ValueError("it fails")
        return number


async def test_those_who_come_while_one_looks_share_the_next_look() -> None:
    looks, source = SharedLooks(), Source()
    first = asyncio.create_task(looks.look("it", source))
    await until(lambda: source.looks == 1, what="a look has begun", every=0.001)
    later = [asyncio.create_task(looks.look("it", source)) for _ in range(20)]
    await asyncio.sleep(0)
    assert source.looks == 1, "one at a time"
    source.go_on.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 20, "what the first look saw may be older than their question"


async def test_a_recent_look_serves_those_who_take_one() -> None:
    looks, source = SharedLooks(), Source()
    source.go_on.set()
    asked = time.monotonic()
    assert await looks.look("it", source) == 1
    assert await looks.look("it", source, since=asked) == 1
    assert await looks.look("other", source, since=asked) == 2
    assert await looks.look("it", source) == 3


async def test_a_failure_reaches_all_and_the_next_look_is_new() -> None:
    looks, source = SharedLooks(), Source()
    source.fails = True
    asked = time.monotonic()
    waiting = [asyncio.create_task(looks.look("it", source, since=asked)) for _ in range(3)]
    await until(lambda: source.looks == 1, what="a look has begun", every=0.001)
    source.go_on.set()
    assert [type(found) for found in await asyncio.gather(*waiting, return_exceptions=True)] == [ValueError] * 3
    assert source.looks == 1
    with pytest.raises(ValueError, match="it fails"):
        await looks.look("it", source)


async def test_one_who_leaves_does_not_end_the_look_of_others() -> None:
    looks, source = SharedLooks(), Source()
    asked = time.monotonic()
    leaving, staying = (asyncio.create_task(looks.look("it", source, since=asked)) for _ in range(2))
    await until(lambda: source.looks == 1, what="a look has begun", every=0.001)
    leaving.cancel()
    source.go_on.set()
    assert await staying == 1
    assert (await asyncio.gather(leaving, return_exceptions=True))[0].__class__ is asyncio.CancelledError
