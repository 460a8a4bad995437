"""`longhaul watch`: one screen over the whole stack."""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli import CommandError
from cli.stack.environment import joined_environment
from longhaul.errors import UnavailableError
from longhaul.settings import Settings, load_settings

if TYPE_CHECKING:
    from longhaul.overview import Overview, Running


PLAIN_WIDTH = 200  # where there is no terminal
WIDTHS = {"session": 36, "failed": 12, "status": 9, "age": 9}


def watch(
    once: Annotated[bool, typer.Option("--once", help="Print it a single time, for scripts.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Show running turns, workers, queues and the last errors, of all users, until Ctrl-C.

    It reads the database and Temporal of this home's stack, or those that the settings name.
    """
    os.environ.update(joined_environment(load_settings()))
    try:
        asyncio.run(_watch(load_settings(), once=once, every=every))
    except UnavailableError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        return


async def _watch(settings: Settings, *, once: bool, every: float) -> None:
    from longhaul.overview import connected  # the Temporal client is slow to import

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    async with connected(settings) as overlook:
        first = screen(await overlook.look(datetime.now(UTC)))
        if once:
            console.print(first)
            return
        with Live(first, console=console, screen=True, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(every)
                try:
                    live.update(screen(await overlook.look(datetime.now(UTC))), refresh=True)
                except UnavailableError as error:
                    live.update(Text(f"{error}\nlooking again", style="red"), refresh=True)


def screen(seen: "Overview") -> Group:
    """All of it as tables."""
    turns = _table("session", "user", "status", "round", "tools", "age", "cost", "model")
    for one in seen.running:
        turns.add_row(*_turn(one, seen.at))
    queues = _table("queue", "workers", "slots", "waiting", "oldest")
    for queue in seen.queues:
        slots, oldest = str(queue.slots) if queue.slots else "-", _age(queue.oldest) if queue.waiting else "-"
        style = "red" if queue.workers == 0 else "yellow" if queue.waiting else ""
        queues.add_row(queue.name, str(queue.workers), slots, str(queue.waiting), oldest, style=style)
    failed = _table("failed", "session", "error")
    for turn in seen.failed:
        ended = turn.ended_at or turn.started_at
        failed.add_row(f"{_age(seen.at - ended)} ago", turn.session_id, " ".join((turn.error or "-").split()))
    parts: list[RenderableType] = [
        Text(f"Longhaul  {seen.at:%Y-%m-%d %H:%M:%S} UTC  {len(seen.running)} turns run", style="bold")
    ]
    for table in (turns, queues, failed):
        if table.row_count:
            parts += ["", table]
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, min_width=WIDTHS.get(column, len(column)))
    return table


def _turn(one: "Running", now: datetime) -> list[str | Text]:
    turn, progress = one
    age = _age(now - turn.started_at)
    if progress is None:
        return [turn.session_id, turn.user_id, Text("not known to Temporal", "red"), "-", "-", age, "-", turn.model]
    cost = progress.usage.cost_microdollars
    tools = ", ".join(tool.name for tool in progress.tools_running) or f"{progress.tools_done} done"
    return [
        turn.session_id,
        turn.user_id,
        str(progress.status),
        str(progress.round),
        tools,
        age,
        f"${cost / 1_000_000:.4f}" if cost is not None else "-",
        progress.model or turn.model,
    ]


def _age(time: timedelta) -> str:
    """A time in its two largest units at most."""
    seconds = max(0, int(time.total_seconds()))
    for unit, length, below, smaller in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            return f"{seconds // length} {unit} {seconds % length // smaller} {below}"
    return f"{seconds} s"
