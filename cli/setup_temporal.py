"""`longhaul setup-temporal`, a step of `make setup`: download the Temporal dev server, or build it."""

import asyncio
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from cli import CommandError
from cli.stack.environment import ROOT, embedded_components
from cli.stack.temporal_server import CLI_VERSION, TemporalBinary, cached_temporal, checked, find_temporal
from longhaul.settings import load_settings

GO_MODULE = ROOT / "scripts" / "temporal"
_DOWNLOAD_S, _BUILD_S, _SAY_EVERY_S = 180.0, 2400.0, 15.0


def setup_temporal() -> None:
    """Find the Temporal dev server on PATH or in the cache; else download it, else build it with Go."""
    if "temporal" not in embedded_components(load_settings()):
        _say("Temporal is set by TEMPORAL_ADDRESS or a profile: no dev server is needed")
        return
    typer.echo(obtain_temporal().path)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def obtain_temporal(module: Path = GO_MODULE) -> TemporalBinary:
    """Find, download or build the binary, and say which of these it was.

    Raises:
        CommandError: every way failed; the text lists the reasons and the remedies.
    """
    failures: list[str] = []
    with _only_copy():
        found = _find(failures) or _download(failures) or _build(module, failures)
    if found is None:
        reasons = "\n".join(f"  - {failure}" for failure in failures)
        raise CommandError(
            f"the Temporal dev server cannot be obtained:\n{reasons}\n"
            "Remedy: put the `temporal` CLI on PATH, or install Go 1.21+, or allow its download, "
            "or set TEMPORAL_ADDRESS to a Temporal that runs elsewhere."
        )
    _say(f"Temporal binary: {found.source} ({found.path})")
    return found


@contextmanager
def _only_copy() -> Iterator[None]:
    """Hold a lock, so that two copies on one machine do not do the same long work twice."""
    folder = cached_temporal().parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another copy is getting the Temporal dev server; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _find(failures: list[str]) -> TemporalBinary | None:
    try:
        return find_temporal()
    except CommandError as error:
        failures.append(str(error).partition("\n")[0])
        return None


def _keep(binary: Path, source: str, failures: list[str]) -> TemporalBinary | None:
    """Put a new binary into the cache if it works."""
    found = checked(binary, source, failures)
    if found is None:
        return None
    binary.replace(cached_temporal())
    return TemporalBinary(cached_temporal(), source, found.version)


def _download(failures: list[str]) -> TemporalBinary | None:
    _say(f"downloading Temporal CLI {CLI_VERSION} by the Temporal SDK")
    with tempfile.TemporaryDirectory(dir=cached_temporal().parent, prefix=".new-") as scratch:
        try:
            asyncio.run(_download_by_sdk(scratch))
        except (RuntimeError, TimeoutError) as error:
            failures.append(f"download by the SDK: {type(error).__name__} {str(error)[:300]}")
            _say("the SDK's download is not possible here")
            return None
        largest = max(Path(scratch).iterdir(), key=lambda path: path.stat().st_size)
        return _keep(largest, "downloaded by the Temporal SDK", failures)


async def _download_by_sdk(folder: str) -> None:
    """Start a server and stop it: only with a start does the SDK offer the download."""
    from temporalio.testing import WorkflowEnvironment  # here, because the import is slow and seldom needed

    async with asyncio.timeout(_DOWNLOAD_S):
        environment = await WorkflowEnvironment.start_local(
            download_dest_dir=folder, dev_server_download_version=f"v{CLI_VERSION}", dev_server_log_level="error"
        )
        await environment.shutdown()


def _build(module: Path, failures: list[str]) -> TemporalBinary | None:
    go = shutil.which("go")
    if go is None or not (module / "go.mod").exists():
        failures.append("build with Go: " + ("there is no `go` on PATH" if go is None else f"{module} is missing"))
        return None
    _say(f"building Temporal CLI {CLI_VERSION} with Go: some minutes, once on this machine")
    with tempfile.TemporaryDirectory(dir=cached_temporal().parent, prefix=".new-") as scratch:
        binary, log = Path(scratch) / "temporal", Path(scratch) / "log"
        options = ["-trimpath", "-ldflags", "-s -w", "-o", str(binary)]
        with log.open("w") as output:
            build = subprocess.Popen(
                [go, "build", *options, "github.com/temporalio/cli/cmd/temporal"],
                stdout=output,
                stderr=output,
                env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"},
                cwd=module,
            )
            try:
                code = _wait_and_say(build)
            finally:
                build.kill()
        if code != 0:
            failures.append("build with Go: " + " / ".join(log.read_text().strip().splitlines()[-5:])[:800])
            return None
        return _keep(binary, "built with Go", failures)


def _wait_and_say(build: "subprocess.Popen[bytes]") -> int | None:
    """The exit code, None if the build takes too long."""
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < _BUILD_S:
        try:
            return build.wait(_SAY_EVERY_S)
        except subprocess.TimeoutExpired:
            _say(f"building: {seconds + _SAY_EVERY_S:.0f} s")
    return None
