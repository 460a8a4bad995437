"""One run of chaos: load and faults at the same time, then rest, then the verdict."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass

from testkit.chaos.breakages import Breakages
from testkit.chaos.load import Load
from testkit.chaos.silence import silences
from testkit.chaos.verdict import Verdict, judge, running, unrest
from testkit.checks import stored
from testkit.product import Product

#: No limit on pending messages: it would only turn outages into refusals. Slots are so few that calls wait for them.
SETTINGS = {
    "LONGHAUL_MAX_PENDING_MESSAGES": "0",
    "LONGHAUL_SHUTDOWN_GRACE": "1",
    "LONGHAUL_MODEL_IDLE_TIMEOUT": "20",
    "LONGHAUL_MAX_CONCURRENT_ACTIVITIES": "3",
    "LONGHAUL_MAX_CONCURRENT_STORES": "2",
    "LONGHAUL_TOOLS": "testkit.chaos.tools:registry",
}
REST_LIMIT_S = 120.0


@dataclass(frozen=True)
class Outcome:
    """The result of a run. `silences`: of streams whose worker was killed, all other faults included."""

    verdict: Verdict
    faults: Counter[str]
    stops: int
    streams: int
    connections: int
    slowest_recovery: float
    silences: list[float]
    seconds: float


async def chaos(
    product: Product, *, seed: int, seconds: float, sessions: int, pause: tuple[float, float] = (0.5, 3.0)
) -> Outcome:
    """Break a product under load for so many seconds, wait until it is at rest, and judge."""
    began = time.monotonic()
    load = Load(product, random.Random(f"load {seed}"))
    await load.prepare(sessions)
    breakages = Breakages(product, random.Random(f"faults {seed}"), load.large_turn)
    async with asyncio.TaskGroup() as both:
        both.create_task(load.run())
        await breakages.run(seconds, pause)
        load.close()
    await until_at_rest(product)
    found = await stored(product.database)
    verdict = judge(found, load.accepted, load.streams)
    verdict.stuck += [f"{workflow} still runs" for workflow in await running(product)]
    verdict.wrong += [*load.problems, *breakages.problems]
    return Outcome(
        verdict,
        breakages.done,
        load.stops,
        len(load.streams),
        sum(log.connections for _, log in load.streams),
        max(breakages.recoveries, default=0.0),
        silences(breakages.kills, load.streams),
        time.monotonic() - began,
    )


async def until_at_rest(product: Product) -> None:
    """Wait until no turn runs and no message waits. The verdict names what still does after the limit."""
    deadline = time.monotonic() + REST_LIMIT_S
    while time.monotonic() < deadline:
        if not unrest(await stored(product.database)) and not await running(product):
            return
        await asyncio.sleep(0.5)
