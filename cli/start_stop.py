"""`longhaul up` and `longhaul down`."""

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.stack.child import rotate, tail
from cli.stack.environment import ROOT
from cli.stack.errors import StackError
from cli.stack.parts import python_module
from cli.stack.progress import Progress
from cli.stack.state import HomeLock, read_state, running_supervisor
from cli.stack.up import Stack, stop_leftovers
from cli.summary import summary
from longhaul.settings import Settings, load_settings

_LOCK_TRIES = 10


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as everything is healthy.")] = False,
) -> None:
    """Start everything on this machine: Temporal, Redis, database, offline model, worker, API.

    What a setting places elsewhere (TEMPORAL_ADDRESS, REDIS_URL, DATABASE_URL, OPENAI_BASE_URL) is not started.
    Ctrl-C stops what was started, and nothing else.
    """
    settings = load_settings()
    home = settings.home.absolute()
    if detach:
        _detach(home)
        return
    lock = HomeLock(home)
    if not _take(lock):
        _already_running(home)
        return
    with lock:
        _make_private(home)
        log = home / "logs" / "supervisor.log"
        rotate(log)
        progress = Progress(Console(), log)
        try:
            asyncio.run(_run(settings, progress))
        except StackError as error:
            progress.record(str(error))
            raise


def _take(lock: HomeLock) -> bool:
    """Take the lock; a `status` that looks at it at this very moment must not count as another supervisor."""
    for _ in range(_LOCK_TRIES):
        if lock.acquire():
            return True
        time.sleep(0.05)
    return False


def _make_private(home: Path) -> None:
    """Keep the home out of version control and of other people's reach: logs and rows are in it."""
    home.chmod(0o700)
    (home / ".gitignore").write_text("*\n", encoding="utf-8")


async def _run(settings: Settings, progress: Progress) -> None:
    stack, ready = Stack(settings, progress), asyncio.Event()
    running = asyncio.create_task(stack.run(ready))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    if ready.is_set():
        typer.echo(summary(stack.state, settings))
        typer.echo("Ctrl-C stops it.")
    waiting.cancel()
    await running


def _already_running(home: Path) -> None:
    state = read_state(home)
    typer.echo(f"already running in {home}" + (f" ({state.status})" if state else ""))
    if state:
        typer.echo(summary(state, load_settings()))


def _detach(home: Path) -> None:
    """Start a supervisor in a session of its own and show its lines until it is ready or has given up."""
    if running_supervisor(home) is not None:
        _already_running(home)
        return
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log, errors = logs / "supervisor.log", logs / "supervisor.err"
    rotate(log)
    log.touch()
    path = ":".join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    with log.open(encoding="utf-8") as lines, errors.open("wb") as stderr:
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
            ended = process.poll()
            for line in lines:
                typer.echo(line.partition(" ")[2].rstrip("\n"))
            state = read_state(home)
            if state is not None and state.supervisor_pid == process.pid and state.status == "ready":
                typer.echo(summary(state, load_settings()))
                typer.echo("`longhaul down` stops it.")
                return
            if ended is not None:
                raise StackError(tail(errors, 40) or f"the supervisor ended with exit code {ended}; see {log}")
            time.sleep(0.1)


def down() -> None:
    """Stop what `up` started in this home, and nothing else."""
    settings = load_settings()
    home = settings.home.absolute()
    pid = running_supervisor(home)
    if pid is None:
        asyncio.run(stop_leftovers(read_state(home), Progress(Console())))
        typer.echo(f"not running in {home}")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + settings.shutdown_grace + 60
    while running_supervisor(home) == pid:
        if time.monotonic() > deadline:
            raise StackError(
                f"the supervisor (pid {pid}) has not stopped in time; see {home / 'logs' / 'supervisor.log'}"
            )
        time.sleep(0.1)
    typer.echo(f"stopped (supervisor pid {pid})")


__all__ = ["down", "up"]
