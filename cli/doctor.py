"""`longhaul doctor`: what is missing, and the remedy."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import typer
from rich.console import Console
from rich.text import Text

from cli.stack import ports
from cli.stack.cache import cache_folder
from cli.stack.environment import embedded_parts
from cli.stack.errors import StackError
from cli.stack.redis_binary import acquire_redis
from cli.stack.state import running_supervisor
from cli.stack.temporal_binary import CLI_VERSION, GO_MODULE
from longhaul.settings import Settings, SettingsError, load_settings

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
    found = ".".join(str(part) for part in sys.version_info[:3])
    good = sys.version_info >= (3, 11)
    return Finding("python", good, found if good else f"{found}; install Python 3.11 or newer")


def check_home(settings: Settings) -> Finding:
    """The home, or the nearest folder above it that exists, can be written to."""
    home = settings.home.absolute()
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    good = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    return Finding(
        "home", good, str(home) if good else f"{nearest} is not writable; set LONGHAUL_HOME to a folder that is"
    )


def check_temporal(settings: Settings) -> Finding:
    """Somewhere to get Temporal from."""
    if "temporal" not in embedded_parts(settings, os.environ):
        return Finding("temporal", ok=True, detail=f"{settings.temporal_address or 'by profile'} (not ours)")
    cached = cache_folder() / "temporal" / CLI_VERSION / "temporal"
    for path in (shutil.which("temporal"), str(cached) if cached.exists() else None):
        if path is not None:
            return Finding("temporal", ok=True, detail=path)
    if (go := shutil.which("go")) and (GO_MODULE / "go.mod").exists():
        return Finding("temporal", ok=True, detail=f"not there yet; can be downloaded, or built with {go}")
    remedy = "no binary and no Go: try the download with `longhaul setup-temporal`, or put `temporal` or `go` on PATH"
    return Finding("temporal", ok=False, detail=remedy)


def check_redis(settings: Settings) -> Finding:
    """A Redis server, or somebody else's."""
    if settings.redis_url:
        return Finding("redis", ok=True, detail="REDIS_URL is set (not ours)")
    try:
        found = asyncio.run(acquire_redis())
    except StackError as error:
        return Finding("redis", ok=False, detail=str(error))
    return Finding("redis", ok=True, detail=f"{found.path} {found.version} ({found.source})")


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
    try:
        answer = httpx2.get(f"{base}/models", headers={"authorization": f"Bearer {key}"}, timeout=_MODEL_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        detail = f"{base} cannot be reached ({type(error).__name__}); check OPENAI_BASE_URL and the network"
        return Finding("model", ok=False, detail=detail)
    if answer.status_code in (401, 403):
        return Finding("model", ok=False, detail=f"{base} refuses the key ({answer.status_code}); check OPENAI_API_KEY")
    return Finding("model", answer.status_code < 500, f"{base} answers {answer.status_code}")


def check_checkout() -> Finding:
    """A clean clone builds Temporal from a folder that an installed wheel has not got."""
    there = Path(GO_MODULE / "go.mod").exists()
    return Finding(
        "checkout", there, str(GO_MODULE.parents[1]) if there else "not a checkout: no build", required=False
    )


def findings() -> list[Finding]:
    """All checks; with unreadable settings, only those that need none."""
    found = [check_python(), check_checkout()]
    try:
        settings = load_settings()
    except SettingsError as error:
        return [*found, Finding("settings", ok=False, detail=str(error))]
    checks: list[Callable[[Settings], Finding]] = [check_home, check_temporal, check_redis, check_ports, check_model]
    return [*found, Finding("settings", ok=True, detail="readable"), *(check(settings) for check in checks)]


def doctor() -> None:
    """Say what this machine has and lacks, with the remedy. Exit code 1: something required is missing."""
    console, found = Console(), findings()
    for one in found:
        word, style = ("ok", "green") if one.ok else (("missing", "red") if one.required else ("note", "yellow"))
        console.print(Text.assemble((f"{word:<8}", style), f"{one.name:<10}{one.detail}"), soft_wrap=True)
    if any(one.required and not one.ok for one in found):
        raise typer.Exit(1)


__all__ = ["Finding", "doctor", "findings"]
