"""Wait until something is true, with a limit and an error that names what was waited for."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")
#: Seconds. Far more than anything takes on a machine under load: only a test that fails waits as long. How long
#: something may take is measured in `bench/`.
LIMIT_S = 60.0
#: A question to a server costs time there: later questions come more slowly, by this factor up to that one.
SLOWER, SLOWEST = 1.3, 4.0


@overload
async def until(
    condition: Callable[[], Awaitable[T | None]], *, limit: float = ..., what: str, every: float = ...
) -> T: ...
@overload
async def until(condition: Callable[[], T | None], *, limit: float = ..., what: str, every: float = ...) -> T: ...
async def until(condition: Callable[[], Any], *, limit: float = LIMIT_S, what: str, every: float = 0.05) -> Any:
    """Call `condition`, at first every `every` seconds, until it returns something true; return that.

    Raises:
        AssertionError: it did not within `limit` seconds; the text names what was waited for and the last value.
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
