"""`longhaul sessions …`: commands on stored sessions. A command registered on `app` appears in the CLI."""

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli import CommandError
from cli.client import ApiUrl, CommandClient, Token, api_url
from cli.conversation import as_json, as_markdown, tree_of, whole
from cli.stack.environment import joined_environment
from cli.stack.state import write_whole
from longhaul.errors import NotFoundError, UnavailableError
from longhaul.settings import Settings, load_settings

app = typer.Typer(help="Look after stored sessions.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look after stored sessions."""


_PAGE = 200
_AGE = re.compile(r"(\d+)([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
SessionId = Annotated[str, typer.Argument(metavar="ID", help="Id of the session.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


@contextmanager
def _client(url: str, token: str) -> Iterator[CommandClient]:
    client = CommandClient(api_url(url), token)
    try:
        yield client
    finally:
        client.close()


def _all(client: CommandClient) -> Iterator[dict[str, Any]]:
    """All sessions of this user that are no sub-sessions, newest first."""
    page = client.get("/sessions", limit=_PAGE)
    yield from page["sessions"]
    while page["next_cursor"] is not None:
        page = client.get("/sessions", limit=_PAGE, cursor=page["next_cursor"])
        yield from page["sessions"]


@app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=_PAGE, help="The newest so many.")] = 20,
    json: AsJson = False,
    url: ApiUrl = "",
    token: Token = "",
) -> None:
    """List the newest sessions."""
    with _client(url, token) as client:
        found = client.get("/sessions", limit=limit)["sessions"]
    if json:
        typer.echo(as_json(found), nl=False)
        return
    table = Table(box=None)
    table.add_column("id", no_wrap=True, min_width=36)
    table.add_column("last change", no_wrap=True, min_width=16)
    table.add_column("title", no_wrap=True)
    for session in found:
        table.add_row(session["id"], session["updated_at"][:16].replace("T", " "), session["title"] or "-")
    Console(highlight=False, markup=False).print(table if found else "no sessions")


@app.command()
def show(
    session_id: SessionId,
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=_PAGE, help="Rows from the end.")] = 20,
    json: AsJson = False,
    url: ApiUrl = "",
    token: Token = "",
) -> None:
    """Show the end of a session, and what runs or waits in it."""
    with _client(url, token) as client:
        page = client.get(f"/sessions/{session_id}", limit=last)
    if json:
        typer.echo(as_json(page), nl=False)
        return
    typer.echo(as_markdown(page), nl=False)
    if page["active_turn"]:
        typer.echo(f"\nturn {page['active_turn']['turn_id']}: {page['active_turn']['status']}")
    for message in page["pending"]["messages"]:
        typer.echo(f"waits: {message['content']}")


@app.command()
def tree(session_id: SessionId, json: AsJson = False, url: ApiUrl = "", token: Token = "") -> None:
    """Show a session and its sub-sessions, with status and cost."""
    with _client(url, token) as client:
        root = client.get(f"/sessions/{session_id}/tree")
    if json:
        typer.echo(as_json(root), nl=False)
    else:
        Console(highlight=False).print(tree_of(root))


@app.command()
def export(
    session_id: SessionId,
    file: Annotated[Path | None, typer.Argument(help="Where to; written whole or not at all. Default: here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="All rows as JSON, also for a FILE that ends in .json.")] = False,
    url: ApiUrl = "",
    token: Token = "",
) -> None:
    """Write a session as Markdown, or with all its rows as JSON."""
    with _client(url, token) as client:
        session = whole(client, session_id)
    text = as_json(session) if json or (file is not None and file.suffix == ".json") else as_markdown(session)
    if file is None:
        typer.echo(text, nl=False)
        return
    try:
        write_whole(file, text)
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error}") from error
    typer.echo(f"written to {file.absolute()}")


@app.command()
def delete(
    session_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Ids of the sessions.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: ApiUrl = "",
    token: Token = "",
) -> None:
    """Delete sessions for good, with their sub-sessions. What runs in them is stopped."""
    _confirm(len(session_ids), yes=yes)
    with _client(url, token) as client:
        for session_id in session_ids:
            client.delete(f"/sessions/{session_id}")
            typer.echo(f"deleted {session_id}")


@app.command()
def clean(
    older_than: Annotated[str, typer.Option("--older-than", help="Unchanged for so long, e.g. 30d, 12h or 8w.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: ApiUrl = "",
    token: Token = "",
) -> None:
    """Delete the sessions that have not changed for some time. One in which a turn runs stays."""
    age = _AGE.fullmatch(older_than)
    if age is None:
        raise CommandError(f"--older-than {older_than!r} is no time: write for example 30d, 12h or 8w")
    before = datetime.now(UTC) - int(age[1]) * _UNITS[age[2]]
    with _client(url, token) as client:
        old = [one for one in _all(client) if datetime.fromisoformat(one["updated_at"]) < before]
        idle = [one for one in old if client.get(f"/sessions/{one['id']}", limit=1)["active_turn"] is None]
        for session in idle:
            typer.echo(f"{session['id']}  {session['updated_at'][:10]}  {session['title'] or '-'}")
        if not idle or dry_run:
            typer.echo(f"{len(idle)} sessions; nothing was deleted")
            return
        _confirm(len(idle), yes=yes)
        for session in idle:
            client.delete(f"/sessions/{session['id']}")
    typer.echo(f"deleted {len(idle)} sessions")


def _confirm(count: int, *, yes: bool) -> None:
    """Ask before something is deleted; without a terminal the answer has to be given as an option."""
    if not yes:
        typer.confirm(f"Delete {count} sessions for good?", abort=True)


@app.command()
def repair(
    session_id: SessionId,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only explain, change nothing.")] = False,
) -> None:
    """Say why a session is stuck, and repair it. A turn that Temporal runs is left alone; repeating it does no harm."""
    os.environ.update(joined_environment(load_settings()))
    try:
        asyncio.run(_repair(load_settings(), session_id, dry_run=dry_run))
    except (NotFoundError, UnavailableError) as error:
        raise CommandError(str(error)) from error


async def _repair(settings: Settings, session_id: str, *, dry_run: bool) -> None:
    from longhaul.turns.repair import connected  # The Temporal client is slow to import.

    async with connected(settings) as session_repair:
        findings = await session_repair.examine(session_id)
        if findings.running is not None:
            typer.echo(f"Temporal runs turn {findings.running.turn_id}; it is left alone (Stop ends it)")
        problems = findings.explain()
        for problem in problems:
            typer.echo(f"- {problem}")
        if not problems:
            typer.echo("nothing is wrong with this session")
        elif dry_run:
            typer.echo("nothing was changed (--dry-run)")
        else:
            await session_repair.repair(findings)
            typer.echo(f"repaired: {len(problems)}")
