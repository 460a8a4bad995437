"""`longhaul doctor`: what is missing on this machine, and the remedy."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import httpx2
import typer
from rich.console import Console
from rich.text import Text

from cli import CommandError
from cli.setup_temporal import GO_MODULE
from cli.stack import ports
from cli.stack.binaries import Binary, find_redis, find_temporal
from cli.stack.environment import embedded_components
from cli.stack.state import Component, running_supervisor
from longhaul.settings import Settings, SettingsError, load_settings
from longhaul.settings.values import without_secrets

_MODEL_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """One line of the report; only a required thing that is missing makes the exit code 1."""

    name: str
    ok: bool
    detail: str
    required: bool = True


def check_python() -> Finding:
    """Python 3.11 or newer."""
    version = ".".join(str(number) for number in sys.version_info[:3])
    good = sys.version_info >= (3, 11)
    return Finding("python", good, version if good else f"{version}; install Python 3.11 or newer")


def check_home(settings: Settings) -> Finding:
    """The home, or the nearest folder above it that exists, can be written to."""
    home = settings.home.absolute()
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    good = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return Finding(
        "home", good, str(home) if good else f"{nearest} is not writable; set LONGHAUL_HOME to a folder that is"
    )


def check_server(name: Component, settings: Settings, find: Callable[[], Binary], elsewhere: str) -> Finding:
    """The program of a server that the stack starts, unless a setting places the server elsewhere."""
    if name not in embedded_components(settings):
        return Finding(name, ok=True, detail=f"{elsewhere} (not ours)")
    try:
        binary = find()
    except CommandError as error:
        return Finding(name, ok=False, detail=str(error))
    return Finding(name, ok=True, detail=f"{binary.path} {binary.version} ({binary.source})")


def check_ports(settings: Settings) -> Finding:
    """Taken ports are no defect: the next free ones are used."""
    if running_supervisor(settings.home.absolute()) is not None:
        return Finding("ports", ok=True, detail="a stack runs in this home; see `longhaul status`")
    wanted = {**ports.PREFERRED, "api": settings.api_port}
    taken = [f"{name} {port}" for name, port in wanted.items() if not ports.is_free(port)]
    detail = f"taken, the next free ones will be used: {', '.join(taken)}" if taken else "all usual ones are free"
    return Finding("ports", ok=True, detail=detail, required=False)


def check_model(settings: Settings) -> Finding:
    """The model endpoint answers; without one, the offline stand-in is used."""
    key = settings.openai_api_key.get_secret_value()
    if not settings.openai_base_url and not key:
        return Finding(
            "model", ok=True, detail="the offline stand-in; set OPENAI_BASE_URL or OPENAI_API_KEY for a real one"
        )
    base = (settings.openai_base_url or "https://api.openai.com/v1").rstrip("/")
    shown = without_secrets(base)
    try:
        answer = httpx2.get(f"{base}/models", headers={"authorization": f"Bearer {key}"}, timeout=_MODEL_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        detail = f"{shown} cannot be reached ({type(error).__name__}); check OPENAI_BASE_URL and the network"
        return Finding("model", ok=False, detail=detail)
    if answer.status_code in (401, 403):
        return Finding("model", ok=False, detail=f"{shown} rejects OPENAI_API_KEY ({answer.status_code})")
    return Finding("model", answer.status_code < 500, f"{shown} answers {answer.status_code}")


def check_checkout() -> Finding:
    """Only a checkout has the Go module from which the Temporal dev server can be built."""
    exists = (GO_MODULE / "go.mod").exists()
    detail = str(GO_MODULE.parents[1]) if exists else "not a checkout: Temporal cannot be built here"
    return Finding("checkout", exists, detail, required=False)


def findings() -> list[Finding]:
    """All checks; with unreadable settings, only those that need none."""
    found = [check_python(), check_checkout()]
    try:
        settings = load_settings()
    except SettingsError as error:
        return [*found, Finding("settings", ok=False, detail=str(error))]
    return [
        *found,
        Finding("settings", ok=True, detail="readable"),
        check_home(settings),
        check_server("temporal", settings, find_temporal, settings.temporal_address or "by profile"),
        check_server("redis", settings, find_redis, "REDIS_URL is set"),
        check_ports(settings),
        check_model(settings),
    ]


def doctor() -> None:
    """Show what this machine has and what is missing, with the remedy. Exit code 1: something required is missing."""
    console, report = Console(), findings()
    for finding in report:
        failure = ("missing", "red") if finding.required else ("note", "yellow")
        word, style = ("ok", "green") if finding.ok else failure
        console.print(Text.assemble((f"{word:<8}", style), f"{finding.name:<10}{finding.detail}"), soft_wrap=True)
    if any(finding.required and not finding.ok for finding in report):
        raise typer.Exit(1)
