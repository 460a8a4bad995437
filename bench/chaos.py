"""`make chaos SEED= MINUTES=`: three workers, two APIs, all servers, and everything that can go wrong with them."""

import asyncio
import secrets
import shutil
import statistics
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from testkit.chaos.race import long_turn, race
from testkit.chaos.run import SETTINGS, Outcome, chaos
from testkit.pool import Pool
from testkit.process import kill_all

Database = Literal["postgresql", "sqlite"]
SHOWN = 20


def main(
    seed: Annotated[int | None, typer.Option(help="Of all that is random; shown at the start.")] = None,
    minutes: Annotated[float, typer.Option(help="How long things go wrong.")] = 3.0,
    sessions: Annotated[int, typer.Option(help="People at the same time.")] = 12,
    database: Annotated[Database, typer.Option(help="Where rows go.")] = "postgresql",
    messages: Annotated[int, typer.Option("--race", help="Also so many messages at the last moments of turns.")] = 0,
    rounds: Annotated[int, typer.Option(help="Also a turn of so many rounds.")] = 0,
) -> None:
    """Exit code 1 unless nothing is lost, doubled, stuck or wrong. The race and the long turn come first, unharmed."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    console = Console()
    console.print(f"chaos: seed {seed}, {minutes:g} minutes, {sessions} people, {database}")
    outcome = asyncio.run(run(console, Plan(seed, minutes * 60, sessions, database, messages, rounds)))
    show(console, outcome)
    raise typer.Exit(0 if outcome.verdict.good else 1)


@dataclass(frozen=True)
class Plan:
    """What was asked for."""

    seed: int
    seconds: float
    sessions: int
    database: Database
    messages: int
    rounds: int


async def run(console: Console, plan: Plan) -> Outcome:
    """A run on servers of its own."""
    folder = Path(tempfile.mkdtemp(prefix="longhaul-chaos-"))
    pool = Pool(folder)
    try:
        async with AsyncExitStack() as stack:
            settings = {**SETTINGS, "LONGHAUL_MAX_ROUNDS": "5000", "LONGHAUL_CONTINUE_AS_NEW_EVENTS": "400"}
            product = await pool.make(
                stack,
                backend=plan.database,
                workers=3,
                apis=2,
                settings=settings,
                own_temporal=True,
                own_redis=True,
                own_model=True,
                own_postgres=True,
            )
            if plan.messages:
                sent, _ = await race(product, messages=plan.messages, sessions=20, seed=plan.seed)
                console.print(f"closing race: {sent.how.total()} messages, none lost, all in order: {dict(sent.how)}")
            if plan.rounds:
                console.print(f"long turn: {await long_turn(product, plan.rounds)}")
            outcome = await chaos(product, seed=plan.seed, seconds=plan.seconds, sessions=plan.sessions)
        if outcome.verdict.good:
            shutil.rmtree(folder)
        else:
            console.print(f"logs of its processes: {folder}", soft_wrap=True)
        return outcome
    finally:
        await pool.close()
        kill_all()


def show(console: Console, outcome: Outcome) -> None:
    """The table, and the first of what went wrong."""
    verdict = outcome.verdict
    table = Table("what", "how many", box=None)
    table.add_row("turns", str(verdict.turns))
    table.add_row("messages accepted", str(verdict.messages))
    table.add_row("stops", str(outcome.stops))
    table.add_row("streams read to their end", f"{outcome.streams} (over {outcome.connections} connections)")
    for name, times in sorted(outcome.faults.items()):
        table.add_row(name, str(times))
    for name in ("lost", "doubled", "stuck", "wrong"):
        count = len(getattr(verdict, name))
        table.add_row(name, f"[bold {'red' if count else 'green'}]{count}[/]")
    if outcome.silences:
        middle, longest = statistics.median(outcome.silences), max(outcome.silences)
        what = f"{middle:.1f} s, at most {longest:.1f} s ({len(outcome.silences)} streams)"
        table.add_row("silence of a stream after kill -9", what)
    table.add_row("slowest recovery of an activity", f"{outcome.slowest_recovery:.1f} s")
    table.add_row("whole run", f"{outcome.seconds:.0f} s")
    console.print(table)
    for name in ("lost", "doubled", "stuck", "wrong"):
        for problem in getattr(verdict, name)[:SHOWN]:
            console.print(f"{name}: {problem}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
