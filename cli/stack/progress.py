"""What the supervisor tells people: lines on the terminal, and the same lines with a time in its log."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.text import Text

_PLAIN_EVERY = 15.0


class Progress:
    """Lines and running steps; one spinner line on a terminal, a line now and then everywhere else."""

    def __init__(self, console: Console | None = None, log: Path | None = None) -> None:
        self._console = console or Console()
        self._log = log
        self._active: dict[str, float] = {}
        self._ticker: asyncio.Task[None] | None = None

    def say(self, text: str, style: str = "") -> None:
        """One lasting line."""
        self._console.print(Text(text, style=style), soft_wrap=True)
        self.record(text)

    def record(self, text: str) -> None:
        """A line for the log alone."""
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {text}\n")

    def warn(self, text: str) -> None:
        """One lasting line that asks for attention."""
        self.say(text, style="yellow")

    @asynccontextmanager
    async def step(self, doing: str) -> AsyncIterator[None]:
        """Show that something goes on, with the seconds it has taken so far."""
        self._active[doing] = time.monotonic()
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            del self._active[doing]
            if not self._active and self._ticker is not None:
                ticker, self._ticker = self._ticker, None
                ticker.cancel()
                await asyncio.gather(ticker, return_exceptions=True)

    def _line(self) -> str:
        now = time.monotonic()
        return " · ".join(f"{doing} … {now - since:.0f} s" for doing, since in self._active.items())

    async def _tick(self) -> None:
        if not self._console.is_terminal:
            while True:
                await asyncio.sleep(_PLAIN_EVERY)
                self.say(self._line())
        with Status(Text(self._line()), console=self._console) as status:
            while True:
                await asyncio.sleep(0.2)
                status.update(Text(self._line()))


__all__ = ["Progress"]
