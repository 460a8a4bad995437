"""Break parts of a running product one after another at random moments, and put them back."""

import asyncio
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing

from redis.asyncio import Redis
from sqlalchemy import make_url
from temporalio.client import Client
from temporalio.service import RPCError

from testkit.chaos.silence import Kill
from testkit.process import Process
from testkit.product import Product

RECOVERY_LIMIT_S = 90.0


class Breakages:
    """Breaks parts of a product. `done` counts, `recoveries` are the seconds until others did a dead worker's work.

    `before_outage` is awaited before the database goes away: it starts a turn whose results will have to wait for it.
    """

    def __init__(self, product: Product, chance: random.Random, before_outage: Callable[[], Awaitable[None]]) -> None:
        self._product = product
        self._chance = chance
        self._before_outage = before_outage
        self._tasks: set[asyncio.Task[None]] = set()
        self._down: set[Process] = set()
        self.done: Counter[str] = Counter()
        self.recoveries: list[float] = []
        self.kills: list[Kill] = []
        self.problems: list[str] = []
        self._kinds: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
            (6, self._kill_worker),
            (3, self._drain_worker),
            (3, self._kill_api),
            (1, self._end_api),
            (1, self._kill_redis),
            (1, self._flush_redis),
            (2, self._hang_redis),
            (1, self._restart_temporal),
            (2, self._hang_model),
            (2, self._hang_worker),
            (2 if product.servers.postgres in product.own else 0, self._hang_database),
            (3 if product.servers.postgres in (None, *product.own) else 0, self._take_database_away),
        )

    async def run(self, seconds: float, pause: tuple[float, float]) -> None:
        """Break something every few moments, for so many seconds; at the end everything runs again."""
        deadline = time.monotonic() + seconds
        weights = [weight for weight, _ in self._kinds]
        actions = [action for _, action in self._kinds]
        while time.monotonic() < deadline:
            await asyncio.sleep(self._chance.uniform(*pause))
            [action] = self._chance.choices(actions, weights)
            await action()
        await asyncio.gather(*self._tasks)

    def _beside(self, doing: Coroutine[None, None, None]) -> None:
        self._tasks.add(asyncio.create_task(doing))

    def _victim(self, processes: list[Process]) -> Process | None:
        """A process that works; it is not chosen again until it is back."""
        whole = [process for process in processes if process not in self._down]
        if not whole:
            return None
        victim = self._chance.choice(whole)
        self._down.add(victim)
        return victim

    async def _kill_worker(self) -> None:
        if (worker := self._victim(self._product.workers)) is None:
            return
        client = await self._product.temporal()
        held = await self._held_by(client, worker)
        self._product.kill(worker)
        sessions = {run.partition("|")[0].removeprefix("turn:") for run, _, _ in held}
        self.kills.append(Kill(time.monotonic(), frozenset(sessions)))
        self.done["worker kill -9"] += 1
        if held:
            self._beside(self._watch(client, held, time.monotonic()))
        self._beside(self._again(worker))

    async def _held_by(self, client: Client, worker: Process) -> set[tuple[str, str, str]]:
        """Workflow, activity and attempt of each activity that a worker runs."""
        found = set()
        query = f"ExecutionStatus='Running' AND TaskQueue='{self._product.task_queue}'"
        async for one in client.list_workflows(query):
            described = await client.get_workflow_handle(one.id, run_id=one.run_id).describe()
            for pending in described.raw_description.pending_activities:
                if pending.last_worker_identity.startswith(f"{worker.pid}@"):
                    found.add((f"{one.id}|{one.run_id}", pending.activity_id, str(pending.attempt)))
        return found

    async def _watch(self, client: Client, held: set[tuple[str, str, str]], died: float) -> None:
        """Record how long it takes until each of these activities runs elsewhere or is done."""
        for run, activity, attempt in held:
            workflow_id, _, run_id = run.partition("|")
            handle = client.get_workflow_handle(workflow_id, run_id=run_id)
            while time.monotonic() - died < RECOVERY_LIMIT_S:
                try:
                    described = await handle.describe()
                except RPCError:
                    await asyncio.sleep(0.2)  # Temporal itself is being restarted
                    continue
                left = {
                    (one.activity_id, str(one.attempt))
                    for one in described.raw_description.pending_activities
                    if one.HasField("last_started_time")
                }
                if (activity, attempt) not in left:
                    break
                await asyncio.sleep(0.1)
            self.recoveries.append(time.monotonic() - died)

    async def _hang_worker(self) -> None:
        if (worker := self._victim(self._product.workers)) is not None:
            self.done["worker hang"] += 1
            self._beside(self._hang(worker))

    async def _hang(self, process: Process) -> None:
        """Suspend a process for so long that it may be taken for dead."""
        process.pause()
        await asyncio.sleep(self._chance.uniform(0.5, 6))
        process.resume()
        self._down.discard(process)

    async def _drain_worker(self) -> None:
        if (worker := self._victim(self._product.workers)) is not None:
            self.done["worker SIGTERM"] += 1
            self._beside(self._end(worker, (0,)))

    async def _kill_api(self) -> None:
        if (api := self._victim(self._product.apis)) is not None:
            self.done["API kill -9"] += 1
            self._product.kill(api)
            self._beside(self._again(api))

    async def _end_api(self) -> None:
        if (api := self._victim(self._product.apis)) is not None:
            self.done["API SIGTERM"] += 1
            self._beside(self._end(api, (0, -signal.SIGTERM)))

    async def _end(self, process: Process, clean: tuple[int, ...]) -> None:
        code = await process.terminate(30)
        if code not in clean:
            self.problems.append(f"{process.name} ended with {code} on SIGTERM: {process.tail(5)}")
        await self._again(process)

    async def _again(self, process: Process) -> None:
        await asyncio.sleep(self._chance.uniform(0, 1))
        await self._product.start_again(process)
        self._down.discard(process)

    async def _kill_redis(self) -> None:
        self.done["Redis kill"] += 1
        self._product.servers.redis.kill()
        await asyncio.sleep(self._chance.uniform(0, 2))
        await self._product.servers.redis.start()

    async def _flush_redis(self) -> None:
        self.done["Redis flush"] += 1
        redis = Redis.from_url(self._product.servers.redis.url())
        await redis.flushall()
        await redis.aclose()

    async def _hang_redis(self) -> None:
        self.done["Redis hang"] += 1
        self._product.servers.redis.pause()
        await asyncio.sleep(self._chance.uniform(0.5, 3))
        self._product.servers.redis.resume()

    async def _restart_temporal(self) -> None:
        self.done["Temporal restart"] += 1
        self._product.servers.temporal.kill()
        await asyncio.sleep(self._chance.uniform(0, 1))
        await self._product.servers.temporal.start()

    async def _hang_model(self) -> None:
        self.done["model hang"] += 1
        self._product.servers.model.pause()
        await asyncio.sleep(self._chance.uniform(0.5, 3))
        self._product.servers.model.resume()

    async def _hang_database(self) -> None:
        if (postgres := self._product.servers.postgres) is not None:
            self.done["database hang"] += 1
            postgres.pause()
            await asyncio.sleep(self._chance.uniform(0.5, 3))
            postgres.resume()

    async def _take_database_away(self) -> None:
        """An outage longer than a second, while nine large results are on their way. SQLite is locked for writers."""
        await self._before_outage()
        self.done["database outage"] += 1
        outage = self._chance.uniform(1, 4)
        if (postgres := self._product.servers.postgres) is not None:
            await postgres.stop()
            await asyncio.sleep(outage)
            await postgres.start()
            return
        path = make_url(self._product.database_url).database or ""
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(outage)
