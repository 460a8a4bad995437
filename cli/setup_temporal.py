"""`longhaul setup-temporal`, a step of `make setup`: download the Temporal dev server, or build it."""

import asyncio
import dataclasses
import fcntl
import functools
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
from cli.stack.binaries import TEMPORAL_CLI_VERSION, Binary, cached_temporal, checked_temporal, find_temporal
from cli.stack.environment import ROOT, embedded_components
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


def obtain_temporal(module: Path = GO_MODULE) -> Binary:
    """Find, download or build the binary, and say which of these it was.

    Raises:
        CommandError: every way failed; the text lists the reasons and the remedies.
    """
    failures: list[str] = []
    with _only_copy():
        for obtain in (find_temporal, _download, functools.partial(_build, module)):
            try:
                binary = obtain()
            except CommandError as error:
                failures.append(str(error).partition("\nRemedy:")[0])
            else:
                _say(f"Temporal binary: {binary.source} ({binary.path})")
                return binary
    reasons = "\n".join(f"  - {failure}" for failure in failures)
    raise CommandError(
        f"the Temporal dev server cannot be obtained:\n{reasons}\n"
        "Remedy: put the `temporal` CLI on PATH, or install Go 1.21+, or allow its download, "
        "or set TEMPORAL_ADDRESS to a Temporal that runs elsewhere."
    )


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


def _keep(binary: Path, source: str) -> Binary:
    """Put a new binary into the cache if it works."""
    checked = checked_temporal(binary, source)
    binary.replace(cached_temporal())
    return dataclasses.replace(checked, path=cached_temporal())


def _download() -> Binary:
    _say(f"downloading Temporal CLI {TEMPORAL_CLI_VERSION} by the Temporal SDK")
    with tempfile.TemporaryDirectory(dir=cached_temporal().parent, prefix=".new-") as scratch:
        try:
            asyncio.run(_download_by_sdk(scratch))
        except (RuntimeError, TimeoutError) as error:
            _say("the SDK's download is not possible here")
            raise CommandError(f"download by the SDK: {type(error).__name__} {str(error)[:300]}") from error
        largest = max(Path(scratch).iterdir(), key=lambda path: path.stat().st_size)
        return _keep(largest, "downloaded by the Temporal SDK")


async def _download_by_sdk(folder: str) -> None:
    """Start a server and stop it: only with a start does the SDK offer the download."""
    from temporalio.testing import WorkflowEnvironment  # here, because the import is slow and seldom needed

    async with asyncio.timeout(_DOWNLOAD_S):
        environment = await WorkflowEnvironment.start_local(
            download_dest_dir=folder,
            dev_server_download_version=f"v{TEMPORAL_CLI_VERSION}",
            dev_server_log_level="error",
        )
        await environment.shutdown()


def _build(module: Path) -> Binary:
    go = shutil.which("go")
    if go is None or not (module / "go.mod").exists():
        raise CommandError("build with Go: " + ("there is no `go` on PATH" if go is None else f"{module} is missing"))
    _say(f"building Temporal CLI {TEMPORAL_CLI_VERSION} with Go: some minutes, once on this machine")
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
            raise CommandError("build with Go: " + " / ".join(log.read_text().strip().splitlines()[-5:])[:800])
        return _keep(binary, "built with Go")


def _wait_and_say(build: "subprocess.Popen[bytes]") -> int | None:
    """The exit code, None if the build takes too long."""
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < _BUILD_S:
        try:
            return build.wait(_SAY_EVERY_S)
        except subprocess.TimeoutExpired:
            _say(f"building: {seconds + _SAY_EVERY_S:.0f} s")
    return None
