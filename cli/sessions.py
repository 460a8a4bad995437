"""`longhaul sessions …`: commands on stored sessions. A command registered on `app` appears in the CLI."""

import asyncio
import os
from typing import Annotated

import typer

from cli import CommandError
from cli.stack.environment import joined_environment
from longhaul.errors import NotFoundError, UnavailableError
from longhaul.settings import Settings, load_settings

app = typer.Typer(help="Look after stored sessions.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look after stored sessions."""


@app.command()
def repair(
    session_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the session.")],
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
