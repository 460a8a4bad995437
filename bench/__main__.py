"""`make bench`: a turn of two model calls, one tool and a streamed answer, against a plain loop in one process."""

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.turns import Figures, Round, Workload, measure, middle, percentile
from longhaul.settings import Settings
from testkit.pool import Pool
from testkit.process import kill_all

# The defaults of the settings for which the testkit has shorter ones.
DEFAULTS = {
    f"LONGHAUL_{name.upper()}": str(Settings.model_fields[name].default)
    for name in ("heartbeat_timeout", "heartbeat_interval", "shutdown_grace")
}


@dataclass(frozen=True)
class Goal:
    """A line of the goal. `of`: one round's figure. `at_least`: the goal is a lower bound."""

    name: str
    bound: float
    unit: str
    of: Callable[[Round], float]
    at_least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    @property
    def text(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}"


GOALS = (
    Goal(
        "turns per second, of the plain loop's",
        1.0,
        " ×",
        lambda r: r.ours.per_second / r.plain.per_second,
        at_least=True,
    ),
    Goal("CPU of a turn, of a plain turn's", 2.0, " ×", lambda r: r.ours.cpu / r.plain.cpu),
    Goal("whole turn above the loop", 30, " ms", lambda r: middle(r.ours.whole) - middle(r.plain.whole)),
    Goal(
        "first text after a tool above the loop",
        45,
        " ms",
        lambda r: middle(r.ours.first_text) - middle(r.plain.first_text),
    ),
    Goal("delta behind the model's pace, median", 10, " ms", lambda r: middle(r.ours.lags)),
    Goal("delta behind the model's pace, p95", 20, " ms", lambda r: percentile(r.ours.lags, 0.95)),
    Goal("CPU of a turn at a real pace", 100, " ms", lambda r: r.ours.cpu_real_pace),
    Goal("Stop in the middle of an answer", 100, " ms", lambda r: middle(r.stops)),
    Goal("long session: whole turn", 1.05, " ×", lambda r: middle(r.long.whole) / middle(r.short.whole)),
    Goal("long session: first text", 1.05, " ×", lambda r: middle(r.long.first_text) / middle(r.short.first_text)),
    Goal("long session: CPU of a turn", 1.05, " ×", lambda r: r.long.cpu / r.short.cpu),
)
EVENTS_GOAL, BYTES_GOAL = 26, 8192


def main(
    rounds: Annotated[int, typer.Option(help="How often everything is measured.")] = 5,
    at_once: Annotated[int, typer.Option(help="Turns at the same time.")] = 50,
    waves: Annotated[int, typer.Option(help="How many times as many turns as run at once.")] = 2,
    singles: Annotated[int, typer.Option(help="Turns one after another.")] = 6,
    paced: Annotated[int, typer.Option(help="Turns at a real pace, at the same time.")] = 8,
    stops: Annotated[int, typer.Option(help="Turns that are stopped.")] = 3,
    tokens: Annotated[int, typer.Option(help="Tokens of the answer.")] = 200,
    delay: Annotated[int, typer.Option(help="A real pace: milliseconds from token to token.")] = 10,
) -> None:
    """Measure on real servers, started for this run alone."""
    workload = Workload(rounds, at_once, waves, singles, paced, stops, tokens, delay)
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
    """Print each line of the goal with the median of the rounds and their spread, met or not; then the figures."""
    table = Table(title=f"{workload.rounds} rounds; a turn has two model calls, a tool and {workload.tokens} tokens")
    for column in ("figure", "median", "min", "max", "goal", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    met = 0
    for goal in GOALS:
        values = [goal.of(found) for found in figures.rounds]
        met += goal.met(middle(values))
        shown = [f"{value:.2f}" if goal.bound < 5 else f"{value:.1f}" for value in (min(values), max(values))]
        median = f"{middle(values):.2f}" if goal.bound < 5 else f"{middle(values):.1f}"
        table.add_row(goal.name, median + goal.unit, *shown, goal.text, _mark(ok=goal.met(middle(values))))
    histories = {"history of a turn": figures.history, "long session: history": figures.history_long}
    for name, (events, size) in histories.items():
        ok = events <= EVENTS_GOAL and size <= BYTES_GOAL
        met += ok
        table.add_row(name, f"{events} events", "", f"{size} B", f"≤ {EVENTS_GOAL}, {BYTES_GOAL} B", _mark(ok=ok))
    console.print(table)
    console.print(f"The goal is met in {met} of {len(GOALS) + len(histories)} lines.")
    _show_sides(console, workload, figures)


def _show_sides(console: Console, workload: Workload, figures: Figures) -> None:
    table = Table(title=f"medians; {workload.at_once} at once, {workload.paced} at once at a real pace")
    for column in ("figure", "Longhaul", "plain loop"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    rows: list[tuple[str, str, Callable[[Round], float], Callable[[Round], float]]] = [
        ("turns per second", "", lambda r: r.ours.per_second, lambda r: r.plain.per_second),
        ("CPU of a turn, client included", " ms", lambda r: r.ours.cpu, lambda r: r.plain.cpu),
        ("CPU of a turn at a real pace", " ms", lambda r: r.ours.cpu_real_pace, lambda r: r.plain.cpu_real_pace),
        ("whole turn alone", " ms", lambda r: middle(r.ours.whole), lambda r: middle(r.plain.whole)),
        ("first text alone", " ms", lambda r: middle(r.ours.first_text), lambda r: middle(r.plain.first_text)),
        ("delta behind the pace", " ms", lambda r: middle(r.ours.lags), lambda r: middle(r.plain.lags)),
        ("whole turn alone, long session", " ms", lambda r: middle(r.long.whole), lambda _: float("nan")),
    ]
    for name, unit, ours, plain in rows:
        sides = [middle([side(found) for found in figures.rounds]) for side in (ours, plain)]
        table.add_row(name, *(f"{value:.1f}{unit}" if value == value else "" for value in sides))
    console.print(table)
    names = figures.rounds[0].cpu_by_process
    by_process = {name: middle([found.cpu_by_process[name] for found in figures.rounds]) for name in names}
    share = ", ".join(f"{name} {used:.0f}" for name, used in by_process.items())
    console.print(f"CPU in ms of a turn: {share}. docs/performance.md says where the time goes.")


def _mark(*, ok: bool) -> str:
    return "[green]met[/]" if ok else "[red]not met[/]"


if __name__ == "__main__":
    typer.run(main)
