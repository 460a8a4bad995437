"""`longhaul credentials …`: keys for users' credentials."""

import asyncio
import os
from typing import TYPE_CHECKING

import typer

from cli import CommandError
from cli.stack.environment import joined_environment
from longhaul.errors import SetupError, UnavailableError
from longhaul.settings import Settings, load_settings

if TYPE_CHECKING:
    from longhaul.credentials.credentials import Reencrypted

app = typer.Typer(help="Keys for users' credentials.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keys for users' credentials."""


@app.command("new-key")
def new_key() -> None:
    """Print a new key. Put it in front of LONGHAUL_CREDENTIAL_KEYS."""
    from longhaul.credentials.vault import new_key

    typer.echo(new_key())


@app.command("reencrypt")
def reencrypt() -> None:
    """Encrypt all credentials with the first of LONGHAUL_CREDENTIAL_KEYS. Then the others are not needed any more."""
    os.environ.update(joined_environment(load_settings()))
    try:
        reencrypted = asyncio.run(_reencrypt(load_settings()))
    except (SetupError, UnavailableError) as error:
        raise CommandError(str(error)) from error
    typer.echo(f"encrypted with the newest key: {reencrypted.done}")
    if reencrypted.unreadable:
        raise CommandError(f"{reencrypted.unreadable} have a key that is not among LONGHAUL_CREDENTIAL_KEYS; add it")


async def _reencrypt(settings: Settings) -> "Reencrypted":
    from longhaul.credentials.credentials import Credentials  # SQLAlchemy is slow to import
    from longhaul.db.database import Database

    database = Database(settings.sqlalchemy_url)
    try:
        return await Credentials(database, settings).reencrypt()
    finally:
        await database.close()
