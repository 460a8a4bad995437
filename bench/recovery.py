"""`python -m bench.recovery`: how long streams stand still when their worker is killed, at the stack's defaults."""

import asyncio
import functools
import random
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from bench.__main__ import DEFAULTS
from testkit.chaos.silence import Kill, silences
from testkit.pool import Pool
from testkit.process import kill_all
from testkit.product import Product
from testkit.streamlog import StreamLog
from testkit.wait import until

TEXTS = ("speak 100 [delay=20]", "rounds 12 [delay=20]", "2*3 and 4*5 and what time is it [ttft=400]", "wait 2 s")
RESTART_PAUSE_S = 0.5  # of the stack's supervisor
LIMIT_S = 120.0


def main(
    kills: Annotated[int, typer.Option(help="How often a worker is killed.")] = 20,
    workers: Annotated[int, typer.Option(help="Workers, on one host.")] = 1,
    people: Annotated[int, typer.Option(help="Streams at the same time.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the moments of the kills.")] = 1,
) -> None:
    """Each kill has its streams recovered before the next one. A killed worker is started again as the stack does."""
    figures = asyncio.run(_run(kills, workers, people, random.Random(seed)))
    table = Table("seconds", "median", "worst", "of", box=None)
    for name, values in figures._asdict().items():
        table.add_row(
            name.replace("_", " "), f"{statistics.median(values):.1f}", f"{max(values):.1f}", str(len(values))
        )
    Console().print(f"{kills} kills of one of {workers} workers, {people} people", table)


class Figures(NamedTuple):
    """Seconds. The restart is from the kill until the new worker is ready, the supervisor's pause included."""

    silence_of_a_stream: list[float]
    restart_of_the_worker: list[float]
    from_the_restart_to_the_next_part: list[float]


async def _run(kills: int, workers: int, people: int, chance: random.Random) -> Figures:
    with tempfile.TemporaryDirectory(prefix="longhaul-recovery-") as folder:
        pool = Pool(Path(folder))
        try:
            async with AsyncExitStack() as stack:
                product = await pool.make(stack, backend="sqlite", workers=workers, settings=DEFAULTS)
                return await _measure(product, kills, people, chance)
        finally:
            await pool.close()
            kill_all()


async def _measure(product: Product, kills: int, people: int, chance: random.Random) -> Figures:
    killed: list[Kill] = []
    starts: list[float] = []
    streams: list[tuple[str, StreamLog]] = []
    closing = asyncio.Event()
    newest: dict[str, StreamLog] = {}

    async def person(session: str) -> None:
        while not closing.is_set():
            live = await product.api.open(session, chance.choice(TEXTS))
            newest[session] = live.log
            streams.append((session, await live.done(LIMIT_S)))

    def moved_since(at: float) -> bool:
        return all(log.began > at or (log.events and log.events[-1].at > at) for log in newest.values())

    sessions = [await product.api.create_session() for _ in range(people)]
    async with asyncio.TaskGroup() as group:
        for session in sessions:
            group.create_task(person(session))
        for _ in range(kills):
            # Long enough for a model call to end: the wait before a call is repeated grows with its tries.
            await asyncio.sleep(chance.uniform(3, 6))
            worker = chance.choice(product.workers)
            killed.append(Kill(time.monotonic(), frozenset(sessions)))
            product.kill(worker)
            await asyncio.sleep(RESTART_PAUSE_S)
            await product.start_again(worker)
            started = time.monotonic()
            starts.append(started - killed[-1].at)
            await until(functools.partial(moved_since, started), limit=LIMIT_S, what="every stream goes on")
        await asyncio.sleep(chance.uniform(2, 4))
        closing.set()
    parts = [[log.began, *(event.at for event in log.events)] for _, log in streams]
    ready = [kill.at + start for kill, start in zip(killed, starts, strict=True)]
    waits = [next(at for at in log if at > one) - one for one in ready for log in parts if log[0] <= one < log[-1]]
    return Figures(silences(killed, streams), starts, waits)


if __name__ == "__main__":
    typer.run(main)
