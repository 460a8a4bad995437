"""Workers and clients of one turn in this process, with faults at every step: real activities, SQLite and Redis.

A worker dies (`kill -9`), hangs and comes back when it has been replaced, loses the answers of Redis or of the
database, or gets them refused. Commands whose answer was lost may take effect later. Everything is drawn from a seed.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any

from pydantic import BaseModel
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.errors import StreamBrokenError, UnavailableError
from longhaul.tools import ToolContext, tool

REDIS_FAULTS = ("refused", "unanswered", "late")


class Faults:
    """How likely each fault is at each step, in this run."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        some = self.random.choice((0.0, 0.3, 1.0))
        self.redis = self.random.choice((0.0, 0.01, 0.05)) * some
        self.database = self.random.choice((0.0, 0.02, 0.1)) * some
        self.model = self.random.choice((0.0, 0.1, 0.4))
        self.killed = self.random.choice((0.0, 0.1, 0.4)) * some
        self.hung = self.random.choice((0.0, 0.1, 0.4)) * some
        self.flush = self.random.choice((0.0, 0.0, 0.3)) * some
        self.outage = self.random.choice((0.0, 0.0, 0.7))
        self.away: set[str] = set()  # what nobody can reach now: "redis", "database"
        self.stop = self.random.choice((0.0, 0.5))
        self.cut = self.random.choice((0.0, 0.3))
        self.background: set[asyncio.Future[Any]] = set()

    def end(self) -> None:
        """From now on nothing breaks."""
        self.redis = self.database = self.model = self.killed = self.hung = 0.0
        self.flush = self.outage = self.stop = self.cut = 0.0
        self.away.clear()

    def happens(self, chance: float) -> bool:
        return self.random.random() < chance

    def later(self, coroutine: Awaitable[Any]) -> None:
        """Let a command take effect at some later moment."""

        async def run() -> None:
            await self.moments(30)
            with suppress(Exception):
                await coroutine

        self.background.add(asyncio.ensure_future(run()))

    async def moments(self, most: int) -> None:
        for _ in range(self.random.randrange(most)):
            await asyncio.sleep(0)


class Process:
    """A process that may be dead or hang."""

    def __init__(self, faults: Faults, url: str, database: Database) -> None:
        self.faults = faults
        self.dead = False
        self.runs = asyncio.Event()
        self.runs.set()
        self.redis = FaultyRedis(self, url)
        self.database = FaultyDatabase(self, database)

    async def moment(self) -> None:
        """A point at which the process may be suspended."""
        await self.faults.moments(4)
        await self.runs.wait()


class FaultyRedis(Redis):
    """A Redis as one process sees it."""

    def __init__(self, process: Process, url: str) -> None:
        super().__init__(connection_pool=ConnectionPool.from_url(url, protocol=2))
        self._process = process

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        process = self._process
        await process.moment()
        if process.dead or "redis" in process.faults.away:
            raise RedisConnectionError("refused")
        command = super().execute_command
        fault = process.faults.random.choice(REDIS_FAULTS) if process.faults.happens(process.faults.redis) else ""
        if fault == "refused":
            raise RedisConnectionError("refused")
        if fault == "late":
            process.faults.later(command(*args, **options))  # type: ignore[no-untyped-call]
            raise RedisTimeoutError("no answer yet")
        answer = await command(*args, **options)  # type: ignore[no-untyped-call]
        await process.moment()
        if fault == "unanswered" or process.dead or "redis" in process.faults.away:
            raise RedisTimeoutError("the answer is lost")
        return answer


class FaultyDatabase(Database):
    """The database as one process sees it."""

    def __init__(self, process: Process, database: Database) -> None:
        self.__dict__.update(database.__dict__)
        self._process = process
        self._real = database

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        await self._before()
        async with self._real.read() as connection:
            yield connection
        await self._after()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        await self._before()
        async with self._real.write() as connection:
            yield connection
        await self._after()

    async def _before(self) -> None:
        await self._process.moment()
        if self._faulty():
            raise UnavailableError("The database cannot be reached.")

    async def _after(self) -> None:
        await self._process.moment()
        if self._faulty():
            raise UnavailableError("The database's answer is lost; the transaction took effect.")

    def _faulty(self) -> bool:
        faults = self._process.faults
        return self._process.dead or "database" in faults.away or faults.happens(faults.database)


class FaultyModel:
    """A model that writes a few words, calls tools for some rounds, and may break off."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._rounds = faults.random.randrange(1, 5)
        self._calls = 0

    async def stream(self, _: dict[str, Any], *, call_key: str = "") -> AsyncGenerator[dict[str, Any], None]:
        faults, chance = self._faults, self._faults.random
        round_ = int(call_key.rpartition(":")[2])
        self._calls += 1
        deltas: list[dict[str, Any]] = []
        if chance.random() < 0.3:
            deltas += [{"reasoning": f"think{self._calls} "} for _ in range(chance.randrange(1, 4))]
        if round_ >= self._rounds or chance.random() < 0.7:
            deltas += [{"content": f"call{self._calls}word{n} "} for n in range(chance.randrange(1, 12))]
        if round_ < self._rounds:
            for n in range(chance.randrange(1, 4)):
                # Some endpoints count from zero in each answer, others never use an id again.
                call_id = f"c{n}" if chance.random() < 0.5 else f"c{self._calls}-{n}"
                function = {"name": "echo", "arguments": '{"text": '}
                deltas.append({"tool_calls": [{"index": n, "id": call_id, "function": function}]})
                deltas.append({"tool_calls": [{"index": n, "function": {"arguments": f'"{self._calls}"}}'}}]})
        breaks_at = chance.randrange(len(deltas) + 1) if faults.happens(faults.model) else None
        for n, delta in enumerate(deltas):
            await faults.moments(8)
            if n == breaks_at:
                raise StreamBrokenError("the model broke off")
            yield {"choices": [{"delta": delta}]}
        yield {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}


class Text(BaseModel):
    text: str


@tool(Text, "Answers with its text.")
async def echo(arguments: Text, context: ToolContext) -> str:
    for _ in range(random.randrange(20)):
        await asyncio.sleep(0)
    return f"{context.tool_call_id}: {arguments.text}"
