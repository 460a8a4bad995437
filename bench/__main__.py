"""`make bench`: a turn of two model calls, one tool and a streamed answer, against a plain loop in one process."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.turns import Figures, Workload, measure
from testkit.pool import Pool
from testkit.process import kill_all

# The embedded stack's defaults, where the testkit has shorter ones.
DEFAULTS = {"LONGHAUL_HEARTBEAT_TIMEOUT": "15", "LONGHAUL_HEARTBEAT_INTERVAL": "1", "LONGHAUL_SHUTDOWN_GRACE": "10"}
GOALS = {
    "first delta after the model sent it": 50.0,
    "whole turn above the plain loop": 100.0,
    "Stop in the middle of an answer": 1000.0,
}
THROUGHPUT_GOAL = 12.0


def main(
    turns: Annotated[int, typer.Option(help="Turns one after another.")] = 20,
    at_once: Annotated[int, typer.Option(help="Turns at the same time.")] = 50,
    waves: Annotated[int, typer.Option(help="How many times as many turns as run at once.")] = 4,
    tokens: Annotated[int, typer.Option(help="Tokens of the answer.")] = 200,
    ttft: Annotated[int, typer.Option(help="The model's time to its first token, in ms.")] = 20,
    delay: Annotated[int, typer.Option(help="The model's time from token to token, in ms.")] = 2,
) -> None:
    """Measure on real servers, started for this run alone."""
    workload = Workload(turns=turns, at_once=at_once, waves=waves, tokens=tokens, ttft_ms=ttft, delay_ms=delay)
    show(Console(), workload, asyncio.run(_run(workload)))


async def _run(workload: Workload) -> Figures:
    with tempfile.TemporaryDirectory(prefix="longhaul-bench-") as folder:
        pool = Pool(Path(folder))
        try:
            async with AsyncExitStack() as stack:
                product = await pool.make(stack, backend="sqlite", settings=DEFAULTS)
                figures = await measure(product, workload)
            await pool.close()
        finally:
            kill_all()
    return figures


def show(console: Console, workload: Workload, figures: Figures) -> None:
    """Print medians with their spread, beside the goals."""
    table = Table(
        title=f"{workload.turns} turns, then {workload.at_once * workload.waves} with {workload.at_once} at once"
    )
    for column in ("figure", "median", "min", "max", "goal"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, values in figures.milliseconds.items():
        goal = f"≤ {GOALS[name]:g} ms" if name in GOALS else ""
        low, middle, high = values
        table.add_row(name, f"{middle:.1f} ms", f"{low:.1f}", f"{high:.1f}", goal)
    table.add_row("turns per second", f"{figures.per_second:.1f}", "", "", f"≥ {THROUGHPUT_GOAL:g}")
    share = ", ".join(f"{name} {used:.0f}" for name, used in figures.cpu.items())
    table.add_row("CPU of a turn then", f"{sum(figures.cpu.values()):.0f} ms", "", "", "")
    table.add_row("history of a turn", f"{figures.events} events", "", f"{figures.history_bytes} B", "≤ 40, 20 KB")
    console.print(table)
    console.print(f"CPU in ms of a turn: {share}. docs/performance.md says where the time goes.")


if __name__ == "__main__":
    typer.run(main)
