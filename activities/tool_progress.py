"""Shows what a running tool reports: in the turn's stream, and to those who ask for the turn's progress."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis

from longhaul.contracts import RunTool, ToolProgress
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.tool_progress import keep, tool_progress_part

#: Seconds between two reports that are shown, at first and later: a tool may run for hours, and a stream has a limit.
PAUSE_S, PAUSE_MAX_S = 0.25, 2.0


class ToolReports(ABC):
    """Shows the newest report of one call, at most a few times a second."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._newest: ToolProgress | None = None
        self._news = asyncio.Event()
        self._ended = False

    @abstractmethod
    async def show(self, progress: ToolProgress, *, last: bool = False) -> None:
        """Show a report; `last`: the call, or this start of it, ends with it."""

    def report(self, progress: ToolProgress) -> None:
        """Take a report, in any thread; returns at once."""
        with suppress(RuntimeError):  # a thread that the tool left behind outlives the worker's event loop
            self._loop.call_soon_threadsafe(self._take, progress)

    def _take(self, progress: ToolProgress) -> None:
        if not self._ended:
            self._newest = progress
            self._news.set()

    @asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Show reports until the block ends; the last of them, too."""
        showing = asyncio.create_task(self._show())
        try:
            yield
        finally:
            # Reports of this loop's own thread are taken in its next round.
            await asyncio.sleep(0)
            self._ended = True
            showing.cancel()
            with suppress(asyncio.CancelledError):
                await showing
            if self._newest is not None:
                await self.show(self._newest, last=True)

    async def _show(self) -> None:
        started = time.monotonic()
        while True:
            await self._news.wait()
            self._news.clear()
            progress, self._newest = self._newest, None
            if progress is not None:
                await self.show(progress)
            await asyncio.sleep(min(PAUSE_S + (time.monotonic() - started) / 60, PAUSE_MAX_S))


class StreamReports(ToolReports):
    """Reports of a tool that runs in this process, which writes the turn's stream."""

    def __init__(self, redis: "Redis", publisher: StreamPublisher, call: RunTool) -> None:
        super().__init__()
        self._redis = redis
        self._publisher = publisher
        self._call = call

    async def show(self, progress: ToolProgress, *, last: bool = False) -> None:
        """Publish it, and keep it for polls unless the call ends with it."""
        self._publisher.put(tool_progress_part(self._call.tool_call_id, self._call.name, progress))
        if self._call.turn.published and not last:
            await keep(self._redis, self._call.turn.turn_id, self._call.tool_call_id, progress)
