"""Short-lived commands: run with a time limit, never left behind."""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_KEPT_LINES = 200


@dataclass(frozen=True)
class Finished:
    """How a command ended; `output` is the end of what it printed, both streams together."""

    code: int
    output: str


class CommandTimeoutError(Exception):
    """A command took longer than it may; it has been killed."""


async def run_command(
    argv: Sequence[str], *, seconds: float, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Finished:
    """Run a command to its end in a process group of its own.

    Raises:
        CommandTimeoutError: it was still running after `seconds`.
        OSError: it could not be started.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        async with asyncio.timeout(seconds):
            assert process.stdout is not None  # noqa: S101  # we asked for a pipe
            while chunk := await process.stdout.read(65536):
                lines.extend(chunk.decode(errors="replace").splitlines())
            code = await process.wait()
    except TimeoutError as error:
        raise CommandTimeoutError(f"{argv[0]} did not end within {seconds:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Finished(code, "\n".join(lines))


__all__ = ["CommandTimeoutError", "Finished", "run_command"]
