"""Waiting for something to become true, with a limit and an error that says what did not."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def until(
    condition: Callable[[], Awaitable[T | None]], *, limit: float = ..., what: str, every: float = ...
) -> T: ...
@overload
async def until(condition: Callable[[], T | None], *, limit: float = ..., what: str, every: float = ...) -> T: ...
async def until(condition: Callable[[], Any], *, limit: float = 10.0, what: str, every: float = 0.05) -> Any:
    """Poll `condition` until it gives something true, and return that.

    Raises:
        AssertionError: it did not within `limit` seconds; the text says what was waited for and what came last.
    """
    deadline = time.monotonic() + limit
    while True:
        answer = condition()
        found = await answer if inspect.isawaitable(answer) else answer
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit:g} s: {what} (last seen: {found!r})")
        await asyncio.sleep(every)


__all__ = ["until"]
