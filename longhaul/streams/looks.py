"""Looks at something slow that several callers share: rows, Temporal, a key in Redis."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
# So long the result of a look is kept for others at most; callers say themselves how old it may be.
KEPT_S = 5.0


class _Look(NamedTuple):
    began: float
    task: "asyncio.Task[Any]"


class SharedLooks:
    """One look at a time for each key. It serves every caller for whom it began late enough."""

    def __init__(self) -> None:
        self._looks: dict[Hashable, _Look] = {}

    async def look(self, key: Hashable, make: Callable[[], Awaitable[T]], since: float | None = None) -> T:
        """The result of a look that began at `since` (`time.monotonic()`) or later; by default, not before this call.

        Raises:
            Exception: what `make` raised, to all who share the look.
        """
        since = time.monotonic() if since is None else since
        while (look := self._looks.get(key)) is None or look.began < since:
            if look is None or look.task.done():
                look = self._begin(key, make)
                break
            await asyncio.wait([look.task])  # Those who need a newer look share the next one.
        found: T = await asyncio.shield(look.task)
        return found

    def began(self, key: Hashable) -> float:
        """When the newest look at this began; 0 if there was none lately."""
        look = self._looks.get(key)
        return look.began if look is not None else 0.0

    def _begin(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> _Look:
        now = time.monotonic()
        self._looks = {
            known: look for known, look in self._looks.items() if not look.task.done() or now - look.began < KEPT_S
        }
        look = self._looks[key] = _Look(now, asyncio.ensure_future(_made(make)))
        look.task.add_done_callback(_note_error)
        return look


async def _made(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


def _note_error(task: "asyncio.Task[Any]") -> None:
    """Mark an error as seen: all who waited for this look may have gone."""
    if not task.cancelled():
        task.exception()
