"""A sandbox, where one can be had. Where none can, the tests see that commands are refused, and say so."""

import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from longhaul.sandbox.output import Output
from longhaul.sandbox.sandbox import Ended, Limits, Sandbox, SandboxError

LIMITS = Limits(memory_bytes=300 << 20, processes=60, disk_bytes=5 << 20)
Run = Callable[..., Awaitable[tuple[Ended, str]]]


@pytest.fixture(scope="session")
def possible() -> bool:
    """Whether this machine lets us make a sandbox, found out without our own code."""
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    command = [
        *as_nobody,
        "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--ro-bind",
        "/",
        "/",
        "true",
    ]
    mount = ["unshare", "--mount", "mount", "--bind", "/usr", "/mnt"]
    try:
        made = subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
        mounted = (
            os.geteuid() != 0 or subprocess.run(mount, capture_output=True, timeout=60, check=False).returncode == 0
        )
    except FileNotFoundError:
        return False
    return made and mounted


async def refusal(work: Awaitable[Any], error: type[Exception] = SandboxError) -> None:
    """Without a sandbox: the work is refused with the remedy. The test then has no more to see."""
    with pytest.raises(error, match="LONGHAUL_SHELL=off"):
        await work
    pytest.skip("no sandbox can be had on this machine; it was checked that the command is refused with the remedy")


@pytest.fixture
def run(possible: bool, tmp_path: Path) -> Run:
    """Runs a command of bash; how it ended, and what it said."""

    async def run(
        command: str, *, stdin: bytes = b"", seconds: float = 120, network: bool = False
    ) -> tuple[Ended, str]:
        sandbox, output = Sandbox("bwrap", LIMITS, network=network), Output([])
        program = ["/bin/bash", "-c", command]
        running = sandbox.run(tmp_path / "workspace", program, output.add, seconds=seconds, stdin=stdin)
        if not possible:
            await refusal(running)
        return await running, output.text

    return run


def processes_with(marker: str) -> list[int]:
    """The processes of this machine that have a text in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                if marker.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found
