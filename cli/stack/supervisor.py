"""Starts the children in order, restarts those that die, stops them all: whatever happens, nothing is left running."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.stack.child import Child, ChildSpec, describe_exit
from cli.stack.errors import StackError
from cli.stack.progress import Progress
from cli.stack.state import ProcessState

_HEALTH_EVERY = 2.0


@dataclass(frozen=True)
class Backoff:
    """Waits between restarts: doubled each time, back to the first after a child has lived for a while."""

    first: float = 0.5
    most: float = 30.0
    forgiven_after: float = 60.0

    def wait(self, deaths: int) -> float:
        """Seconds before the start that follows this many deaths in a row."""
        return float(min(self.most, self.first * 2 ** min(deaths - 1, 30)))


class Supervisor:
    """The children of one stack, in stages: those of a stage start together, stages one after another."""

    def __init__(
        self,
        logs: Path,
        progress: Progress,
        on_change: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
        health_every: float = _HEALTH_EVERY,
    ) -> None:
        self._logs = logs
        self._progress = progress
        self._on_change = on_change
        self._backoff = backoff or Backoff()
        self._health_every = health_every
        self._children: list[Child] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._hurry = asyncio.Event()

    @property
    def processes(self) -> list[ProcessState]:
        """All children that were started."""
        return [child.state() for child in self._children if child.pid]

    async def start_stage(self, specs: Sequence[ChildSpec], beside: Sequence[Awaitable[None]] = ()) -> None:
        """Start some children together and wait until each is healthy; `beside` is other work of this stage.

        Raises:
            StackError: one of them ended or was not healthy in time.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for spec in specs:
                    group.create_task(self._start(spec))
                for work in beside:
                    group.create_task(_as_coroutine(work))
        except ExceptionGroup as errors:
            expected, other = errors.split(StackError)
            if other is not None:
                raise other from errors
            if expected is not None:
                raise StackError("\n".join(str(error) for error in expected.exceptions)) from errors
            raise

    async def _start(self, spec: ChildSpec) -> None:
        child = Child(spec, self._logs)
        self._children.append(child)
        began = time.monotonic()
        async with self._progress.step(f"starting {spec.name}"):
            await child.start()
            self._on_change()
            await child.until_healthy()
        self._progress.say(f"{spec.name}: healthy after {time.monotonic() - began:.1f} s (pid {child.pid})")
        self._on_change()

    async def watch(self, until: asyncio.Event) -> None:
        """Restart what dies, until the event is set."""
        self._watchers = [asyncio.create_task(self._watch(child)) for child in self._children]
        stopping = asyncio.create_task(until.wait())
        try:
            done, _ = await asyncio.wait([stopping, *self._watchers], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # a watcher only ends by a defect of ours: let it be seen
        finally:
            for task in (stopping, *self._watchers):
                task.cancel()
            await asyncio.gather(stopping, *self._watchers, return_exceptions=True)

    async def _watch(self, child: Child) -> None:
        deaths = 0
        while True:
            code = await self._until_dead(child)
            lived = time.monotonic() - child.started
            deaths = 1 if lived > self._backoff.forgiven_after else deaths + 1
            pause = self._backoff.wait(deaths)
            self._progress.warn(
                f"{child.spec.name} died ({describe_exit(code)}) after {lived:.0f} s; "
                f"restart {child.restarts + 1} in {pause:.1f} s; see {child.log}"
            )
            self._on_change()
            await child.stop(grace=0)  # what its process group may have left behind
            await asyncio.sleep(pause)
            child.restarts += 1
            try:
                await child.start()
            except OSError as error:
                self._progress.warn(f"{child.spec.name} cannot be started: {error}")
            self._on_change()

    async def _until_dead(self, child: Child) -> int | None:
        """Follow one life of a child and note each change of its health."""
        ended = asyncio.create_task(child.wait())
        try:
            while True:
                done, _ = await asyncio.wait([ended], timeout=self._health_every if child.healthy else 0.2)
                if done:
                    return ended.result()
                problem = await child.spec.health()
                if ended.done():
                    continue
                if (problem is None) != child.healthy:
                    child.healthy = problem is None
                    self._progress.say(f"{child.spec.name}: {'healthy' if child.healthy else f'unhealthy: {problem}'}")
                    self._on_change()
        finally:
            ended.cancel()

    def hurry(self) -> None:
        """Stop waiting for children that take their time to end."""
        self._hurry.set()

    async def stop(self) -> None:
        """Stop everything, the last started first."""
        for child in reversed(self._children):
            if not child.running:
                await child.stop(grace=0)
                continue
            began = time.monotonic()
            async with self._progress.step(f"stopping {child.spec.name}"):
                willing = await self._stop_child(child)
            how = "stopped" if willing else "killed"
            self._progress.say(f"{child.spec.name}: {how} after {time.monotonic() - began:.1f} s")
            self._on_change()

    async def _stop_child(self, child: Child) -> bool:
        stopping = asyncio.create_task(child.stop(grace=0 if self._hurry.is_set() else None))
        hurried = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait([stopping, hurried], return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                await child.stop(grace=0)
            return await stopping
        finally:
            hurried.cancel()


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work


__all__ = ["Backoff", "Supervisor"]
