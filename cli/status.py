"""`longhaul status`."""

from typing import Annotated

import orjson
import psutil
import typer
from rich.console import Console
from rich.table import Table

from cli.stack.state import Endpoints, ProcessState, StackState, read_state, running_supervisor
from longhaul.settings import load_settings


def _alive(process: ProcessState) -> bool:
    try:
        found = psutil.Process(process.pid)
        return abs(found.create_time() - process.created) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def as_json(state: StackState | None) -> dict[str, object]:
    """The status as programs read it; everything is null or empty where no stack runs."""
    endpoints: dict[str, object] = dict.fromkeys(Endpoints.model_fields)
    if state is None:
        return {**endpoints, "processes": [], "versions": {}}
    endpoints.update({name: value or None for name, value in state.endpoints.model_dump().items()})
    processes = [
        {"name": one.name, "pid": one.pid, "healthy": one.healthy and _alive(one), "restarts": one.restarts}
        for one in state.processes
    ]
    return {**endpoints, "processes": processes, "versions": state.versions}


def status(json: Annotated[bool, typer.Option("--json", help="One JSON object for programs.")] = False) -> None:
    """Show URLs, processes, their health and versions. Exit code 1: no stack runs in this home."""
    home = load_settings().home.absolute()
    state = read_state(home) if running_supervisor(home) is not None else None
    if json:
        typer.echo(orjson.dumps(as_json(state), option=orjson.OPT_INDENT_2).decode())
    elif state is None:
        typer.echo(f"not running in {home}; start it with `longhaul up`")
    else:
        _show(state)
    if state is None:
        raise typer.Exit(1)


def _show(state: StackState) -> None:
    console = Console()
    console.print(f"{state.status} (supervisor pid {state.supervisor_pid})", highlight=False)
    for name, value in state.endpoints.model_dump().items():
        console.print(f"  {name:<17}{value or '-'}", highlight=False, markup=False, soft_wrap=True)
    table = Table("process", "pid", "healthy", "restarts", box=None)
    for one in state.processes:
        healthy = one.healthy and _alive(one)
        table.add_row(one.name, str(one.pid), "[green]yes[/]" if healthy else "[red]no[/]", str(one.restarts))
    console.print(table)
    versions = " · ".join(f"{name} {value}" for name, value in state.versions.items())
    console.print(versions, highlight=False, markup=False)


__all__ = ["as_json", "status"]
