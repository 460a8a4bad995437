"""Where the `temporal` binary (server and Web UI in one) comes from.

PATH, then our cache, then the download that the SDK offers, then a build with Go from the pinned module in
`tools/temporal`. What was taken is said, and what did not work is named in the error when nothing did.
"""

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cli.stack.cache import cache_folder, exclusive
from cli.stack.commands import CommandTimeoutError, run_command
from cli.stack.errors import StackError
from cli.stack.progress import Progress

CLI_VERSION = "1.8.2"
CLI_PACKAGE = "github.com/temporalio/cli/cmd/temporal"
ROOT = Path(__file__).resolve().parents[2]
GO_MODULE = ROOT / "tools" / "temporal"
DOWNLOAD_SECONDS = 180.0
BUILD_SECONDS = 2400.0
_VERSION_SECONDS = 30.0


@dataclass(frozen=True)
class TemporalBinary:
    """A binary that has answered `--version`."""

    path: Path
    source: str
    version: str


async def acquire(progress: Progress, cache: Path | None = None, module: Path = GO_MODULE) -> TemporalBinary:
    """Find, download or build the binary.

    Raises:
        StackError: no way led to one; the text lists each way's failure and the remedies.
    """
    folder = (cache or cache_folder()) / "temporal" / CLI_VERSION
    cached = folder / "temporal"
    failures: list[str] = []
    for path, source in ((shutil.which("temporal"), "on PATH"), (cached if cached.exists() else None, "in the cache")):
        if path is not None and (found := await _answers(Path(path), source, failures)):
            return _taken(found, progress)
    async with exclusive(folder / "lock", progress, "waiting for another copy that is getting the Temporal server"):
        if cached.exists() and (found := await _answers(cached, "in the cache, put there by another copy", failures)):
            return _taken(found, progress)
        for source, way in (("downloaded by the Temporal SDK", _download), ("built with Go", _build)):
            with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
                if not await way(Path(scratch), module, progress, failures):
                    continue
                if found := await _answers(Path(scratch) / "temporal", source, failures):
                    (Path(scratch) / "temporal").replace(cached)
                    return _taken(TemporalBinary(cached, source, found.version), progress)
    reasons = "\n".join(f"  - {failure}" for failure in failures)
    raise StackError(
        f"no Temporal dev server to be had:\n{reasons}\n"
        "Remedy: put the `temporal` CLI on PATH, or install Go 1.21+, or allow its download, "
        "or set TEMPORAL_ADDRESS to a Temporal that runs elsewhere."
    )


def _taken(found: TemporalBinary, progress: Progress) -> TemporalBinary:
    progress.say(f"Temporal binary: {found.source} ({found.path})")
    return found


async def _answers(path: Path, source: str, failures: list[str]) -> TemporalBinary | None:
    """The binary if it runs here and has the dev server in it: a truncated or foreign one is passed over."""
    try:
        answer = await run_command([str(path), "--version"], seconds=_VERSION_SECONDS)
    except (OSError, CommandTimeoutError) as error:
        failures.append(f"{path} ({source}) does not run: {error}")
        return None
    if answer.code != 0 or "Server" not in answer.output:
        failures.append(f"{path} ({source}) is not the Temporal CLI: --version says {answer.output[:80]!r}")
        return None
    server = answer.output.partition("Server ")[2].partition(",")[0]
    return TemporalBinary(path, source, server)


async def _download(scratch: Path, module: Path, progress: Progress, failures: list[str]) -> bool:
    del module
    argv = [sys.executable, "-P", "-m", "cli.stack.sdk_download", str(scratch), CLI_VERSION]
    try:
        async with progress.step(f"downloading Temporal CLI {CLI_VERSION} by its SDK"):
            ended = await run_command(
                argv, seconds=DOWNLOAD_SECONDS, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=scratch
            )
    except CommandTimeoutError as error:
        failures.append(f"download by the SDK: {error}")
        return False
    files = _files_by_size(scratch)
    if ended.code != 0 or not files:
        last = ended.output.strip().splitlines()[-1:] or ["no output"]
        failures.append(f"download by the SDK: {last[0][:300]}")
        progress.say("Temporal binary: the SDK's download is not possible here")
        return False
    files[-1].rename(scratch / "temporal")
    return True


def _files_by_size(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_size)


async def _build(scratch: Path, module: Path, progress: Progress, failures: list[str]) -> bool:
    go = shutil.which("go")
    if go is None:
        failures.append("build with Go: there is no `go` on PATH")
        return False
    if not (module / "go.mod").exists():
        failures.append(f"build with Go: {module} is missing (it comes with the checkout)")
        return False
    argv = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(scratch / "temporal"), CLI_PACKAGE]
    try:
        async with progress.step(f"building Temporal CLI {CLI_VERSION} with Go (some minutes, once on this machine)"):
            ended = await run_command(
                argv,
                seconds=BUILD_SECONDS,
                env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
                cwd=module,
            )
    except (OSError, CommandTimeoutError) as error:
        failures.append(f"build with Go: {error}")
        return False
    if ended.code != 0:
        failures.append("build with Go: " + " / ".join(ended.output.strip().splitlines()[-5:])[:800])
        return False
    return True


__all__ = ["CLI_VERSION", "GO_MODULE", "TemporalBinary", "acquire"]
