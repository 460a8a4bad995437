"""Starts the children in order, restarts those that die, and stops them all: at the end nothing is left running."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cli import CommandError
from cli.stack.parent_death import ParentDeathWatcher
from cli.stack.process import Child, Program, describe_exit
from cli.stack.state import ProcessState

log = logging.getLogger(__name__)
LONGEST_PAUSE_S = 30.0
FORGIVEN_AFTER_S = 60.0  # a child that lived this long starts again with the first pause


def restart_pause(first: float, deaths: int) -> float:
    """Seconds before the start that follows this many deaths in a row: doubled each time, up to a limit."""
    return float(min(LONGEST_PAUSE_S, first * 2 ** min(deaths - 1, 30)))


class Supervisor:
    """The children of one stack, in stages: those of a stage start together, stages one after another."""

    def __init__(
        self,
        logs: Path,
        on_change: Callable[[], None] = lambda: None,
        *,
        first_pause: float = 0.5,
        health_every: float = 2.0,
    ) -> None:
        self._logs = logs
        self._on_change = on_change
        self._first_pause = first_pause
        self._health_every = health_every
        self._watcher = ParentDeathWatcher()
        self._children: list[Child] = []

    @property
    def processes(self) -> list[ProcessState]:
        """The children that were started."""
        return [child.state() for child in self._children]

    async def start_stage(self, programs: Sequence[Program]) -> None:
        """Start programs together and wait until each is ready.

        Raises:
            CommandError: one of them ended or was not ready in time.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for program in programs:
                    group.create_task(self._start(program))
        except ExceptionGroup as errors:
            expected, other = errors.split(CommandError)
            if expected is None or other is not None:
                raise
            raise CommandError("\n".join(str(error) for error in expected.exceptions)) from errors

    async def _start(self, program: Program) -> None:
        child = Child(program, self._logs, self._watcher)
        self._children.append(child)
        await child.start()
        self._on_change()
        await child.until_ready()
        seconds = time.monotonic() - child.started
        if program.health is None:
            await child.kill()  # it has ended; this takes its group off the watcher's list
            self._children.remove(child)
            log.info("%s: done after %.1f s", program.name, seconds)
        else:
            log.info("%s: healthy after %.1f s (pid %d)", program.name, seconds, child.state().pid)
        self._on_change()

    async def watch(self) -> None:
        """Restart children that die, until this is cancelled."""
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(self._watch(child))

    async def _watch(self, child: Child) -> None:
        name, deaths = child.program.name, 0
        while True:
            code = await self._until_dead(child)
            lived = time.monotonic() - child.started
            deaths = 1 if lived > FORGIVEN_AFTER_S else deaths + 1
            pause = restart_pause(self._first_pause, deaths)
            log.warning(
                "%s died (%s) after %.0f s; restart %d in %.1f s; see %s",
                *(name, describe_exit(code), lived, child.restarts + 1, pause, child.log),
            )
            await child.kill()  # its group may have processes left
            self._on_change()
            while not child.running:
                await asyncio.sleep(pause)
                child.restarts += 1
                try:
                    await child.start()
                except OSError as error:  # this machine is out of processes or files at the moment
                    log.warning("%s cannot be started: %s; next try in %.1f s", name, error, pause)
            self._on_change()

    async def _until_dead(self, child: Child) -> int:
        """Note each change of a child's health until it ends; its exit code."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._health_every if child.healthy else 0.2):
                    return await child.wait()
            problem = await child.program.health() if child.program.health is not None else None
            if child.running and (problem is None) != child.healthy:
                child.healthy = problem is None
                log.info("%s: %s", child.program.name, "healthy" if child.healthy else f"unhealthy: {problem}")
                self._on_change()

    def hurry(self) -> None:
        """Kill children that take their time to end."""
        for child in self._children:
            child.signal(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop everything, the last started first."""
        for child in reversed(self._children):
            began, was_running = time.monotonic(), child.running
            how = "stopped" if await child.stop() else "killed"
            if was_running:
                log.info("%s: %s after %.1f s", child.program.name, how, time.monotonic() - began)
        self._children.clear()
        self._watcher.close()
        self._on_change()
