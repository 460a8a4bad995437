"""`longhaul worker`, `api`, `migrate` and `setup-temporal`: single parts in the foreground."""

import asyncio
import os
import sys

import typer
from rich.console import Console

from cli.stack import temporal_binary
from cli.stack.environment import child_environment, embedded_parts
from cli.stack.errors import StackError
from cli.stack.parts import python_module
from cli.stack.progress import Progress
from cli.stack.state import read_state, running_supervisor
from longhaul.settings import Settings, load_settings


def joined_environment(settings: Settings) -> dict[str, str]:
    """Our environment, with the parts that a stack running in this home provides.

    So `longhaul worker` adds a worker to a running `longhaul up`, and needs nothing but settings elsewhere.
    """
    home = settings.home.absolute()
    state = read_state(home) if running_supervisor(home) is not None else None
    if state is None:
        return dict(os.environ)
    ours = [part for part in embedded_parts(settings, os.environ) if part in state.embedded]
    return child_environment(settings, state.endpoints.model_copy(update={"api_url": ""}), ours, os.environ)


def _become(module: str) -> None:
    argv = python_module(module)
    os.execve(argv[0], argv, joined_environment(load_settings()))  # noqa: S606  # our own interpreter and module


def worker() -> None:
    """Run a worker in the foreground; beside a running stack, it joins that stack."""
    _become("worker")


def api() -> None:
    """Run the API in the foreground on LONGHAUL_API_HOST and LONGHAUL_API_PORT."""
    _become("api")


def migrate() -> None:
    """Bring the database (DATABASE_URL, else SQLite in the home) to the newest schema."""
    from sqlalchemy.exc import SQLAlchemyError

    from longhaul.db.migrate import upgrade  # Alembic is slow to import

    settings = load_settings()
    if not settings.database_url:
        settings.home.absolute().mkdir(parents=True, exist_ok=True)
    try:
        upgrade(settings.sqlalchemy_url)
    except (OSError, SQLAlchemyError) as error:
        raise StackError(f"the database cannot be migrated: {error}") from error
    typer.echo("the database has the newest schema")


def setup_temporal() -> None:
    """Get the Temporal dev server's binary: from PATH or cache, else by download, else built with Go."""
    settings = load_settings()
    if "temporal" not in embedded_parts(settings, os.environ):
        typer.echo("Temporal is set by TEMPORAL_ADDRESS or a profile: no binary needed")
        return
    found = asyncio.run(temporal_binary.acquire(Progress(Console(file=sys.stderr))))
    typer.echo(f"{found.path} (server {found.version})")


__all__ = ["api", "joined_environment", "migrate", "setup_temporal", "worker"]
