"""One run of the stack, from the choice of ports to the last process stopped."""

import asyncio
import contextlib
import logging
import os
import platform
import signal
from collections.abc import Callable
from importlib.metadata import version

import longhaul
from cli.stack import programs
from cli.stack.binaries import find_redis, find_temporal
from cli.stack.environment import choose_ports, embedded_components, endpoints_of, stack_environment
from cli.stack.ports import PortClaims
from cli.stack.state import StackState, read_state, write_state
from cli.stack.supervisor import Supervisor
from longhaul.settings import Settings

log = logging.getLogger(__name__)


class Stack:
    """One run. The caller holds the lock of the home."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.home.absolute()
        self._claims = PortClaims()
        self._supervisor = Supervisor(self._home / "logs", self._save)
        self._state = StackState(supervisor_pid=os.getpid())

    def _save(self) -> None:
        self._state.processes = self._supervisor.processes
        write_state(self._home, self._state)

    async def run(self, on_ready: Callable[[StackState], None]) -> None:
        """Start everything, call `on_ready`, keep everything alive until SIGINT or SIGTERM, stop everything.

        The first signal begins the stop, the second kills what has not ended yet.

        Raises:
            CommandError: a program is missing or does not start; those started before it have been stopped.
        """
        work = asyncio.create_task(self._work(on_ready))

        def on_signal() -> None:
            if work.cancelling() or not work.cancel():
                self._supervisor.hurry()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)  # until the loop ends
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            self._state.status = "stopping"
            self._save()
            await self._supervisor.stop()
            self._claims.release()
            self._state.status, self._state.supervisor_pid = "stopped", 0
            self._save()

    async def _work(self, on_ready: Callable[[StackState], None]) -> None:
        await self._start()
        self._state.status = "ready"
        self._save()
        on_ready(self._state)
        await self._supervisor.watch()

    async def _start(self) -> None:
        settings, state = self._settings, self._state
        last = read_state(self._home)
        state.embedded = embedded = embedded_components(settings)
        ports = choose_ports(settings, embedded, last, self._claims)
        state.ports = {**(last.ports if last else {}), **ports}
        state.endpoints = endpoints_of(settings, embedded, ports)
        state.versions = {
            "longhaul": longhaul.__version__,
            "python": platform.python_version(),
            "temporalio": version("temporalio"),
        }
        env = stack_environment(settings, state.endpoints, embedded, os.environ)
        first = [programs.migrate(env)]
        if "temporal" in embedded:
            temporal = find_temporal()
            log.info("Temporal: %s (%s)", temporal.source, temporal.path)
            state.versions["temporal"] = temporal.version
            first.append(programs.temporal(temporal.path, settings, ports, env))
        else:
            log.info("Temporal: %s (not ours, not started)", state.endpoints.temporal_address)
        if "redis" in embedded:
            redis = find_redis()
            log.info("Redis: %s (%s)", redis.source, redis.path)
            state.versions["redis"] = redis.version
            first.append(programs.redis(redis.path, settings, ports["redis"], env))
        else:
            log.info("Redis: %s (not ours, not started)", state.endpoints.redis_url)
        log.info("Database: %s", state.endpoints.database_url)
        if "model" in embedded:
            log.info("Model: the offline stand-in (set OPENAI_BASE_URL or OPENAI_API_KEY for a real one)")
            first.append(programs.model(ports["model"], env))
        await self._supervisor.start_stage(first)
        await self._supervisor.start_stage([programs.worker(settings, env), programs.api(state.endpoints.api_url, env)])
