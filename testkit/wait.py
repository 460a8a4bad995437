"""Waiting for something to become true, with a limit and an error that says what did not."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")
# A question to a server costs it something: what is long in coming is asked for less often, four times less at most.
SLOWER, SLOWEST = 1.3, 4.0


@overload
async def until(
    condition: Callable[[], Awaitable[T | None]], *, limit: float = ..., what: str, every: float = ...
) -> T: ...
@overload
async def until(condition: Callable[[], T | None], *, limit: float = ..., what: str, every: float = ...) -> T: ...
async def until(condition: Callable[[], Any], *, limit: float = 10.0, what: str, every: float = 0.05) -> Any:
    """Poll `condition` until it gives something true, and return that: every so many seconds at first.

    Raises:
        AssertionError: it did not within `limit` seconds; the text says what was waited for and what came last.
    """
    deadline, pause = time.monotonic() + limit, every
    while True:
        answer = condition()
        asked = inspect.isawaitable(answer)
        found = await answer if asked else answer
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit:g} s: {what} (last seen: {found!r})")
        await asyncio.sleep(pause)
        if asked:
            pause = min(pause * SLOWER, every * SLOWEST)


__all__ = ["until"]
