"""`make bench-bill`: many turns with faults, Stops and killed workers; the ledger against the endpoint's bill."""

import asyncio
import random
import tempfile
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from testkit.bill import SETTINGS, TURNS, Comparison, compare, use
from testkit.pool import Pool
from testkit.process import kill_all
from testkit.product import Product

#: Turns of one session, the stopped one included; sessions at once.
TURNS_OF_SESSION, AT_ONCE = 6, 12


async def _kills(product: Product, every_s: float, chance: random.Random) -> int:
    """Kill a worker every so often, and start it again; how many, once this is cancelled."""
    done = 0
    try:
        while every_s:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * every_s)
            worker = chance.choice(product.workers)
            product.kill(worker)
            done += 1
            await asyncio.shield(product.start_again(worker))
    except asyncio.CancelledError:
        pass
    return done


async def _run(turns: int, seed: int, kill_every_s: float) -> tuple[Comparison, int]:
    chance = random.Random(seed)
    sessions = [chance.choices(TURNS, k=TURNS_OF_SESSION - 1) for _ in range(turns // TURNS_OF_SESSION + 1)]
    with tempfile.TemporaryDirectory(prefix="longhaul-bench-") as folder:
        pool = Pool(Path(folder))
        try:
            async with AsyncExitStack() as stack:
                product = await pool.make(stack, workers=3, own_model=True, settings=SETTINGS)
                killing = asyncio.create_task(_kills(product, kill_every_s, chance))
                places = asyncio.Semaphore(AT_ONCE)

                async def in_place(work: Awaitable[None]) -> None:
                    async with places:
                        await work

                await asyncio.gather(*(in_place(use(product, texts)) for texts in sessions))
                killing.cancel()
                kills = await killing
                await product.revive()
                found = await compare(product)
            await pool.close()
        finally:
            kill_all()
    return found, kills


def main(
    turns: Annotated[int, typer.Option(help="Turns of people; sub-sessions have their own beside them.")] = 500,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 1,
    kill_every: Annotated[float, typer.Option(help="Seconds between two killed workers, on average. 0: none.")] = 0,
) -> None:
    """Exit 1 if a row differs from the bill, or a call is booked twice; without kills also if one has no row."""
    found, kills = asyncio.run(_run(turns, seed, kill_every))
    console = Console()
    console.print(f"{found.turns} turns, {kills} workers killed, {found.billed} calls billed by the endpoint")
    console.print(f"booked: {found.booked} rows, of which differ from the bill: {len(found.wrong)}")
    share = f"{100 * (found.guessed / found.unknown - 1):+.2f} %" if found.unknown else "-"
    console.print(f"estimated: {found.estimated} rows; their sum differs from what those calls cost by {share}")
    console.print(f"calls booked twice: {len(found.doubled)}; billed calls without a row: {found.without_row}")
    for problem in (*found.wrong, *found.doubled):
        console.print(problem)
    raise typer.Exit(bool(found.wrong or found.doubled or (found.without_row and not kills)))


if __name__ == "__main__":
    typer.run(main)
