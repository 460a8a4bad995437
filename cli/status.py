"""`longhaul status`, and the summary that `up` prints when the stack is ready."""

from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from cli.stack.state import Endpoints, StackState, running_state
from longhaul.settings import Settings, load_settings


def as_json(state: StackState | None) -> dict[str, object]:
    """The status as programs read it; everything is null or empty where no stack runs."""
    endpoints: dict[str, object] = dict.fromkeys(Endpoints.model_fields)
    if state is None:
        return {**endpoints, "processes": [], "versions": {}}
    endpoints.update({name: value or None for name, value in state.endpoints.model_dump().items()})
    processes = [process.model_dump() for process in state.processes]
    return {**endpoints, "processes": processes, "versions": state.versions}


def status(json: Annotated[bool, typer.Option("--json", help="One JSON object for programs.")] = False) -> None:
    """Show URLs, processes, their health and versions. Exit code 1: no stack runs in this home."""
    home = load_settings().home.absolute()
    state = running_state(home)
    if json:
        typer.echo(orjson.dumps(as_json(state), option=orjson.OPT_INDENT_2).decode())
    elif state is None:
        typer.echo(f"not running in {home}; start it with `longhaul up`")
    else:
        _show(state)
    if state is None:
        raise typer.Exit(1)


def _show(state: StackState) -> None:
    console = Console(highlight=False)
    console.print(f"{state.status} (supervisor pid {state.supervisor_pid})")
    for name, value in state.endpoints.model_dump().items():
        console.print(f"  {name:<17}{value or '-'}", markup=False, soft_wrap=True)
    table = Table("process", "pid", "healthy", "restarts", box=None)
    for process in state.processes:
        healthy = "[green]yes[/]" if process.healthy else "[red]no[/]"
        table.add_row(process.name, str(process.pid), healthy, str(process.restarts))
    console.print(table)
    console.print(" · ".join(f"{name} {value}" for name, value in state.versions.items()), markup=False)


def summary(state: StackState, settings: Settings) -> str:
    """The URLs, and a first message ready to paste."""
    endpoints = state.endpoints
    lines = [
        ("Chat page and API", endpoints.api_url),
        ("API docs", f"{endpoints.api_url}/docs"),
        ("Temporal Web UI", endpoints.temporal_ui_url or "(not ours; set LONGHAUL_TEMPORAL_UI_URL to show it here)"),
        ("Temporal", endpoints.temporal_address),
        ("Redis", endpoints.redis_url),
        ("Database", endpoints.database_url),
        ("Model", endpoints.model_base_url + (" (offline stand-in)" if "model" in state.embedded else "")),
    ]
    width = max(len(name) for name, _ in lines)
    table = "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)
    example = _curl_example(endpoints.api_url, token=settings.auth == "jwt")
    return f"\nLonghaul runs.\n{table}\n\nA first message, to paste into another terminal:\n\n{example}\n"


def _curl_example(api_url: str, *, token: bool) -> str:
    """Shell lines that create a session and stream an answer in which the calculator is used."""
    headers = " -H 'content-type: application/json'" + (' -H "authorization: Bearer $LONGHAUL_TOKEN"' if token else "")
    take_id = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"id\"])'"
    return (
        f"SESSION=$(curl -sS {api_url}/v1/sessions{headers} -d '{{}}' | {take_id}) && \\\n"
        f'curl -N {api_url}/v1/sessions/$SESSION/stream{headers} -d \'{{"message": "What is 12 * (3 + 4)?"}}\''
    )
