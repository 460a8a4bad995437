"""One isolated Longhaul with its own task queue, rows and Redis database, and any number of workers and APIs."""

import asyncio
import itertools
import os
import secrets
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx2
from temporalio.client import Client

from cli.stack.programs import http_ok, local_client, python_module
from longhaul.db.database import Database
from longhaul.db.migrate import upgrade
from longhaul.payloads import data_converter
from testkit.client import RecordingClient
from testkit.postgres import PostgresServer
from testkit.process import ModuleProcess, Process
from testkit.servers import HOST, ROOT, ModelServer, RedisServer, Server, TemporalServer, free_port
from testkit.wait import LIMIT_S, until

#: Longer than the API lets a poll wait, and than a machine under load needs to accept a connection.
CLIENT_TIMEOUT_S = 90.0
Backend = Literal["sqlite", "postgresql"]
BACKENDS: tuple[Backend, ...] = ("sqlite", "postgresql")
_OURS = ("LONGHAUL_", "TEMPORAL_", "OPENAI_", "DATABASE_URL", "REDIS_URL")
#: Time limits are short where a test waits for them. Limits of use that most tests would reach are off.
SETTINGS: Mapping[str, str] = {
    "LONGHAUL_HEARTBEAT_TIMEOUT": "3",
    "LONGHAUL_HEARTBEAT_INTERVAL": "0.3",
    "LONGHAUL_MODEL_BACKOFF_BASE": "0.05",
    "LONGHAUL_SHUTDOWN_GRACE": "2",
    "LONGHAUL_FOLLOW_UP_RATE_LIMIT": "0",
    "LONGHAUL_MAX_RUNNING_TURNS": "0",
    "LONGHAUL_NEW_TURN_RATE_LIMIT": "0",
    "LONGHAUL_MAX_STREAMS": "0",
    "LONGHAUL_MAX_LONG_POLLS": "0",
    "LONGHAUL_DAILY_COST_LIMIT": "0",
    "LONGHAUL_WEEKLY_COST_LIMIT": "0",
    "LONGHAUL_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "LONGHAUL_MODEL_STANDARD": "offline-standard",
    "LONGHAUL_MODEL_ADVANCED": "offline-advanced",
    "LONGHAUL_MODEL_SMALL": "offline-small",
}


@dataclass(frozen=True)
class Servers:
    """The servers of a product; PostgreSQL only where it stores rows there."""

    temporal: TemporalServer
    redis: RedisServer
    model: ModelServer
    postgres: PostgresServer | None = None


@dataclass
class Product:
    """`Pool.make` and the fixtures start it; then use `api`, `database` and `servers`."""

    folder: Path
    servers: Servers
    backend: Backend = "sqlite"
    settings: Mapping[str, str] = field(default_factory=dict)
    redis_database: int = 0
    own: tuple[Server, ...] = ()
    workers: list[Process] = field(default_factory=list)
    apis: list[Process] = field(default_factory=list)
    task_queue: str = field(default_factory=lambda: f"test-{secrets.token_hex(6)}")
    database_url: str = ""
    _database: Database | None = None
    _urls: dict[Process, str] = field(default_factory=dict)
    _ready: dict[Process, Path] = field(default_factory=dict)
    _clients: list[RecordingClient] = field(default_factory=list)
    _killed: set[Process] = field(default_factory=set)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def prepare(self) -> None:
        """Make and migrate its database."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.backend == "postgresql":
            if self.servers.postgres is None:
                raise RuntimeError("this product needs a PostgreSQL server")
            self.database_url = await self.servers.postgres.new_database()
        else:
            self.database_url = f"sqlite:///{self.folder / 'longhaul.db'}"
            await asyncio.to_thread(upgrade, self.database_url)
        self._database = Database(self.database_url, pool_size=5)

    @property
    def database(self) -> Database:
        """Its database, for checks and for rows that a test inserts."""
        if self._database is None:
            raise RuntimeError("the product has not been prepared")
        return self._database

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of its processes, without the variables of a Longhaul that the developer runs."""
        base = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        return {
            **base,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "LONGHAUL_HOME": str(self.folder / "home"),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.servers.redis.url(self.redis_database),
            "TEMPORAL_ADDRESS": self.servers.temporal.address,
            "OPENAI_BASE_URL": self.servers.model.base_url,
            "OPENAI_API_KEY": "offline",
            "LONGHAUL_TASK_QUEUE": self.task_queue,
            **SETTINGS,
            **self.settings,
            **(more or {}),
        }

    async def start_worker(self, settings: Mapping[str, str] | None = None, *, ready: bool = True) -> Process:
        """Start one more worker and, if `ready`, wait until it polls."""
        name = f"worker-{len(self.workers) + 1}"
        sign = self.folder / f"{name}.ready"
        environment = self.environment({"LONGHAUL_READY_FILE": str(sign), **(settings or {})})
        worker = self._process(name, "worker", environment)
        self._ready[worker] = sign
        self.workers.append(worker)
        worker.start()
        if ready:
            await self.until_ready(worker)
        return worker

    async def start_tool_worker(self, queue: str, settings: Mapping[str, str]) -> Process:
        """Start a tool worker as on another host: its environment says where Temporal and the API are, and no more."""
        name = f"tool-worker-{len(self.workers) + 1}"
        folder = self.folder / name
        folder.mkdir()
        sign = self.folder / f"{name}.ready"
        environment = {
            "PYTHONPATH": str(ROOT),
            "TEMPORAL_ADDRESS": self.servers.temporal.address,
            "LONGHAUL_API_URL": self.url(),
            "LONGHAUL_TASK_QUEUE": self.task_queue,
            "LONGHAUL_READY_FILE": str(sign),
            **settings,
        }
        # A process of its own: a forked one would have the memory and the files of the one that it was forked from.
        command = python_module("worker", "--role", "tools", "--queue", queue)
        worker = Process(name, command, self.folder / f"{name}.log", environment, folder)
        self._ready[worker] = sign
        self.workers.append(worker)
        worker.start()
        await self.until_ready(worker)
        return worker

    async def start_api(self, settings: Mapping[str, str] | None = None, *, ready: bool = True) -> Process:
        """Start one more API on a port of its own."""
        port = free_port()
        environment = self.environment({"LONGHAUL_API_HOST": HOST, "LONGHAUL_API_PORT": str(port), **(settings or {})})
        api = self._process(f"api-{len(self.apis) + 1}", "api.__main__", environment)
        self._urls[api] = f"http://{HOST}:{port}"
        self.apis.append(api)
        api.start()
        if ready:
            await self.until_ready(api)
        return api

    async def until_ready(self, process: Process, limit: float = LIMIT_S) -> None:
        """Wait until a worker polls or an API answers."""

        async def good() -> bool:
            if not process.running:
                raise AssertionError(f"{process.name} ended with {process.code} at its start:\n{process.tail(30)}")
            if process in self._ready:
                return self._ready[process].exists()
            return await http_ok(f"{self._urls[process]}/healthz")() is None

        await until(good, limit=limit, what=f"{process.name} is ready")

    async def mend(self) -> None:
        """Start again what has died, wake up its own servers that hang, and begin the logs of a failing test."""
        for server in self.own:
            server.resume()
            if not server.running:
                await server.start()
        await self.revive()
        for process in self.processes:
            process.mark()

    async def revive(self) -> None:
        """Start again the workers and APIs that have died."""
        for process in (*self.workers, *self.apis):
            if not process.running:
                await self.start_again(process)

    async def start_again(self, process: Process) -> None:
        """Start a worker or an API that has ended, as it was, and wait until it is ready."""
        if sign := self._ready.get(process):
            sign.unlink(missing_ok=True)
        process.start()
        await self.until_ready(process)

    def _process(self, name: str, module: str, environment: Mapping[str, str]) -> Process:
        return ModuleProcess(name, module, self.folder / f"{name}.log", environment, self.folder)

    async def command(self, *arguments: str, limit: float = LIMIT_S) -> tuple[int, str]:
        """Run `longhaul ARGUMENTS` against it and wait; its exit code and its output."""
        name = f"longhaul-{next(self._numbers)}"
        log = self.folder / f"{name}.log"
        process = ModuleProcess(name, "cli", log, self.environment(), self.folder, arguments)
        process.start()
        try:
            await until(lambda: not process.running, limit=limit, what=f"longhaul {' '.join(arguments)} ends")
        finally:
            process.kill()
        return process.code or 0, log.read_text()

    def kill(self, process: Process) -> None:
        """`kill -9`; its exit code is not checked."""
        self._killed.add(process)
        process.kill()

    async def terminate(self, process: Process, limit: float = LIMIT_S) -> int:
        """Send SIGTERM and wait; the exit code, which must be clean."""
        code = await process.terminate(limit)
        assert not self._dirty(process), f"{process.name} ended with {code}:\n{process.tail(30)}"
        return code

    def _dirty(self, process: Process) -> bool:
        # uvicorn ends by the signal that it was stopped with, as programs on Unix should; a worker returns.
        fine = (0, -signal.SIGTERM) if process in self.apis else (0,)
        return process not in self._killed and process.code not in fine

    def url(self, api: Process | None = None) -> str:
        """The URL of an API (of the first, if none is named)."""
        return self._urls[api or self.apis[0]]

    def client(self, api: Process | None = None, headers: Mapping[str, str] | None = None) -> RecordingClient:
        """A client of that API; it is closed with the product."""
        http = local_client(
            base_url=f"{self.url(api)}",
            headers=dict(headers or {}),
            timeout=CLIENT_TIMEOUT_S,
            # Shorter than the server keeps a connection, so that none is reused while it is being closed.
            limits=httpx2.Limits(max_connections=200, keepalive_expiry=2),
        )
        self._clients.append(RecordingClient(http))
        return self._clients[-1]

    @property
    def api(self) -> RecordingClient:
        """The client of the first API."""
        return self._clients[0] if self._clients else self.client()

    async def temporal(self) -> Client:
        """A client that reads and writes as the product's processes do."""
        client = await self.servers.temporal.client()
        codec = self.settings.get("LONGHAUL_PAYLOAD_CODEC", "")
        return Client(client.service_client, namespace=client.namespace, data_converter=data_converter(codec))

    @property
    def processes(self) -> list[Process]:
        """All processes whose logs may explain a failure, the most useful first."""
        servers = (self.servers.temporal, self.servers.redis, self.servers.model, self.servers.postgres)
        return [*self.workers, *self.apis, *(one.process for one in servers if one is not None and one.process)]

    async def close(self) -> None:
        """Stop everything in order.

        Raises:
            AssertionError: a process did not end, or not with a clean exit code.
        """
        for client in self._clients:
            await client.close()
        for server in self.own:
            server.resume()
        running = [process for process in (*self.apis, *self.workers) if process.running]
        results = await asyncio.gather(*(process.terminate() for process in running), return_exceptions=True)
        problems = [str(result) for result in results if isinstance(result, BaseException)]
        dirty = [process for process in running if self._dirty(process)]
        problems += [f"{process.name} ended with {process.code}:\n{process.tail(30)}" for process in dirty]
        if self._database is not None:
            await self._database.close()
        for server in self.own:
            await server.stop()
            server.remove()
        assert not problems, "\n".join(problems)


@asynccontextmanager
async def running(product: Product, workers: int = 1, apis: int = 1) -> AsyncIterator[Product]:
    """Run the product with its processes, and stop them at the end also after an error."""
    try:
        await asyncio.gather(*(server.start() for server in product.own))
        await product.prepare()
        started = [await product.start_worker(ready=False) for _ in range(workers)]
        started += [await product.start_api(ready=False) for _ in range(apis)]
        await asyncio.gather(*(product.until_ready(process) for process in started))
        yield product
    finally:
        await product.close()
