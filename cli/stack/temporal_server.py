"""The `temporal` binary (dev server and Web UI): on PATH, else in our cache. `cli.setup_temporal` puts it there."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cli import CommandError

CLI_VERSION = "1.8.2"


@dataclass(frozen=True)
class TemporalBinary:
    """A binary that has answered `--version`."""

    path: Path
    source: str
    version: str


def cached_temporal() -> Path:
    """Where all copies of one user keep the binary: below `$LONGHAUL_CACHE`, else `$XDG_CACHE_HOME/longhaul`."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longhaul"
    folder = Path(os.environ.get("LONGHAUL_CACHE") or default).expanduser()
    return folder / "temporal" / CLI_VERSION / "temporal"


def find_temporal() -> TemporalBinary:
    """The first binary that works.

    Raises:
        CommandError: there is none.
    """
    failures: list[str] = []
    for path, source in ((shutil.which("temporal"), "on PATH"), (cached_temporal(), "in the cache")):
        if path is None or not Path(path).exists():
            failures.append(f"{path or '`temporal`'} is not {source}")
        elif found := checked(Path(path), source, failures):
            return found
    raise CommandError(
        f"the Temporal dev server is missing: {'; '.join(failures)}.\n"
        "Remedy: run `make setup` or `longhaul setup-temporal`, which download or build it; "
        "or set TEMPORAL_ADDRESS to a Temporal that runs elsewhere."
    )


def checked(path: Path, source: str, failures: list[str]) -> TemporalBinary | None:
    """The binary, if it runs here and contains the dev server; a truncated or different program does not."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        failures.append(f"{path} ({source}) does not run: {error}")
        return None
    if answer.returncode != 0 or "Server" not in answer.stdout:
        failures.append(f"{path} ({source}) is not the Temporal CLI: --version says {answer.stdout[:80]!r}")
        return None
    return TemporalBinary(path, source, answer.stdout.partition("Server ")[2].partition(",")[0])
