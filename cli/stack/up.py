"""One run of the stack, from the lock on its home to the last process stopped."""

import asyncio
import contextlib
import os
import platform
import signal
from collections.abc import AsyncIterator, Coroutine
from importlib.metadata import version

import psutil

import longhaul
from cli.stack.child import tail
from cli.stack.commands import CommandTimeoutError, run_command
from cli.stack.environment import child_environment
from cli.stack.errors import StackError
from cli.stack.parts import api_part, model_part, python_module, redis_part, temporal_part, worker_part
from cli.stack.plan import Plan, make_plan
from cli.stack.ports import PortClaims
from cli.stack.progress import Progress
from cli.stack.redis_binary import acquire_redis
from cli.stack.state import StackState, read_state, write_state
from cli.stack.supervisor import Supervisor
from cli.stack.temporal_binary import acquire
from longhaul.settings import Settings

MIGRATION_SECONDS = 900.0


class Stack:
    """Holds what one run needs; `run()` is all there is to call. The caller holds the home's lock."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._home = settings.home.absolute()
        self._progress = progress
        self._claims = PortClaims()
        self._state = StackState(supervisor_pid=os.getpid())
        self._supervisor = Supervisor(self._home / "logs", progress, self._save)

    @property
    def state(self) -> StackState:
        """As last stored."""
        return self._state

    def _save(self) -> None:
        self._state = self._state.model_copy(update={"processes": self._supervisor.processes})
        write_state(self._home, self._state)

    async def run(self, on_ready: asyncio.Event) -> None:
        """Start everything, set the event, keep it alive until SIGINT or SIGTERM, stop everything.

        Raises:
            StackError: a part is missing or does not start; everything started before it has been stopped.
        """
        async with self._signals() as stop:
            try:
                if await _unless(stop, self._start()):
                    self._state = self._state.model_copy(update={"status": "ready"})
                    self._save()
                    on_ready.set()
                    await self._supervisor.watch(stop)
            finally:
                self._state = self._state.model_copy(update={"status": "stopping"})
                self._save()
                await self._supervisor.stop()
                self._claims.release()
                self._state = self._state.model_copy(update={"status": "stopped", "supervisor_pid": 0})
                self._state.processes = []
                write_state(self._home, self._state)

    @contextlib.asynccontextmanager
    async def _signals(self) -> AsyncIterator[asyncio.Event]:
        """The first signal asks to stop, the second to stop at once."""
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def asked() -> None:
            if stop.is_set():
                self._supervisor.hurry()
            stop.set()

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, asked)
        try:
            yield stop
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def _start(self) -> None:
        last = read_state(self._home)
        await stop_leftovers(last, self._progress)
        plan = make_plan(self._settings, last, self._claims, self._progress)
        env = child_environment(self._settings, plan.endpoints, plan.embedded, os.environ)
        self._state = self._state.model_copy(
            update={
                "ports": {**(last.ports if last else {}), **plan.ports},
                "embedded": plan.embedded,
                "endpoints": plan.endpoints,
                "versions": {
                    "longhaul": longhaul.__version__,
                    "python": platform.python_version(),
                    "temporalio": version("temporalio"),
                },
            }
        )
        self._save()
        await self._start_servers(plan, env)
        await self._supervisor.start_stage([worker_part(self._settings, env), api_part(plan.endpoints.api_url, env)])

    async def _start_servers(self, plan: Plan, env: dict[str, str]) -> None:
        """Everything that worker and API need; the database migrates while the servers start."""
        specs = []
        if "temporal" in plan.embedded:
            temporal = await acquire(self._progress)
            self._state.versions["temporal"] = temporal.version
            specs.append(temporal_part(temporal, self._settings, plan.ports, env))
        if "redis" in plan.embedded:
            redis = await acquire_redis()
            self._progress.say(f"Redis server: {redis.source} ({redis.path})")
            self._state.versions["redis"] = redis.version
            specs.append(redis_part(redis, self._settings, plan.ports, env))
        if "model" in plan.embedded:
            self._progress.say("Model: the offline stand-in (set OPENAI_BASE_URL or OPENAI_API_KEY for a real one)")
            specs.append(model_part(plan.ports, env))
        await self._supervisor.start_stage(specs, [self._migrate(env)])

    async def _migrate(self, env: dict[str, str]) -> None:
        """In a process of its own, so that a database that hangs can be given up."""
        try:
            async with self._progress.step("migrating the database"):
                ended = await run_command(python_module("cli", "migrate"), seconds=MIGRATION_SECONDS, env=env)
        except CommandTimeoutError as error:
            raise StackError(f"migrating {self._state.endpoints.database_url}: {error}") from error
        log = self._home / "logs" / "migrate.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(ended.output + "\n", encoding="utf-8")
        if ended.code != 0:
            raise StackError(f"migrating {self._state.endpoints.database_url} failed:\n{tail(log, 12)}")
        self._progress.say(f"database: {self._state.endpoints.database_url}")


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Do the work, or give it up when asked to stop; whether it was done."""
    working, stopping = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


async def stop_leftovers(last: StackState | None, progress: Progress) -> None:
    """Stop the children of a supervisor that was killed: where the kernel does not do it, the next start must.

    A pid counts only together with its start time, so no later process that got the number is touched.
    """
    left: list[psutil.Process] = []
    for known in last.processes if last else []:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(known.pid)
            if known.created and abs(process.create_time() - known.created) < 1:
                left.append(process)
                progress.warn(f"{known.name} (pid {known.pid}) is left from a supervisor that was killed: stopping it")
                process.terminate()
    if left:
        _, alive = await asyncio.to_thread(psutil.wait_procs, left, timeout=10)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await asyncio.to_thread(psutil.wait_procs, alive, timeout=5)


__all__ = ["Stack", "stop_leftovers"]
