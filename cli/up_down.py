"""`longhaul up` and `longhaul down`."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from cli import CommandError
from cli.stack.environment import ROOT
from cli.stack.process import rotate, tail
from cli.stack.programs import python_module
from cli.stack.state import StackState, claim_home, read_state, running_supervisor
from cli.stack.up import Stack
from cli.status import summary
from longhaul.settings import load_settings

log = logging.getLogger("cli.stack")


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as everything is healthy.")] = False,
) -> None:
    """Start everything on this machine: Temporal, Redis, database, offline model, worker, API.

    A component that a setting places elsewhere (TEMPORAL_ADDRESS, REDIS_URL, DATABASE_URL, OPENAI_BASE_URL) is not
    started. Ctrl-C stops what this command started, and nothing else.
    """
    settings = load_settings()
    home = settings.home.absolute()
    if detach:
        _detach(home)
        return
    if claim_home(home) is None:
        _already_running(home)
        return
    home.chmod(0o700)  # logs and rows are in it
    (home / ".gitignore").write_text("*\n", encoding="utf-8")
    file = home / "logs" / "supervisor.log"
    file.parent.mkdir(exist_ok=True)
    rotate(file)
    _log_to(file)

    def on_ready(state: StackState) -> None:
        typer.echo(summary(state, settings))
        typer.echo("Ctrl-C stops it.")

    try:
        asyncio.run(Stack(settings).run(on_ready))
    except CommandError as error:
        log.debug("%s", error)  # for the file alone: `main` shows it on the terminal
        raise


def _log_to(path: Path) -> None:
    """Show the supervisor's lines on the terminal, and write them with the time to its log."""
    terminal, file = logging.StreamHandler(sys.stdout), logging.FileHandler(path, encoding="utf-8")
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"))
    log.handlers = [terminal, file]
    log.setLevel(logging.DEBUG)


def _already_running(home: Path) -> None:
    state = read_state(home)
    typer.echo(f"already running in {home}" + (f" ({state.status})" if state else ""))
    if state:
        typer.echo(summary(state, load_settings()))


def _detach(home: Path) -> None:
    """Start a supervisor in a session of its own and show its lines until it is ready or has failed."""
    if running_supervisor(home) is not None:
        _already_running(home)
        return
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    file, errors = logs / "supervisor.log", logs / "supervisor.err"
    rotate(file)
    file.touch()
    path = ":".join(folder for folder in (str(ROOT), os.environ.get("PYTHONPATH", "")) if folder)
    with file.open(encoding="utf-8") as lines, errors.open("wb") as stderr:
        lines.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            python_module("cli", "up"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        while True:
            code = process.poll()
            for line in lines:
                typer.echo(line.partition(" ")[2].rstrip("\n"))
            state = read_state(home)
            if state is not None and state.supervisor_pid == process.pid and state.status == "ready":
                typer.echo(summary(state, load_settings()))
                typer.echo("`longhaul down` stops it.")
                return
            if code is not None:
                raise CommandError(tail(errors, 40) or f"the supervisor ended with exit code {code}; see {file}")
            time.sleep(0.1)


def down() -> None:
    """Stop what `up` started in this home, and nothing else."""
    settings = load_settings()
    home = settings.home.absolute()
    pid = running_supervisor(home)
    if pid is None:
        typer.echo(f"not running in {home}")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + settings.shutdown_grace + 60
    while running_supervisor(home) == pid:
        if time.monotonic() > deadline:
            raise CommandError(
                f"the supervisor (pid {pid}) has not stopped in time; see {home / 'logs' / 'supervisor.log'}"
            )
        time.sleep(0.1)
    typer.echo(f"stopped (supervisor pid {pid})")
