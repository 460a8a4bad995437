"""The folder outside every checkout where downloaded and built things are kept, shared by all copies of one user."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from cli.stack.progress import Progress


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """`$LONGHAUL_CACHE`, else `longhaul` under `$XDG_CACHE_HOME` or `~/.cache`."""
    variables = os.environ if environment is None else environment
    if own := variables.get("LONGHAUL_CACHE"):
        return Path(own).expanduser()
    base = variables.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "longhaul"


@asynccontextmanager
async def exclusive(lock: Path, progress: Progress, waiting: str) -> AsyncIterator[None]:
    """Hold a lock file, so that two copies on one machine do not do the same long work twice."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try_lock(handle):
            async with progress.step(waiting):
                while not _try_lock(handle):  # noqa: ASYNC110  # another process holds it: no event to wait for
                    await asyncio.sleep(0.5)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


__all__ = ["cache_folder", "exclusive"]
