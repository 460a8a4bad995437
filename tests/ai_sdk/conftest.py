"""The SDK's packages, and commands that run in this folder."""

import asyncio
import fcntl
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
LOCK = FOLDER / "package-lock.json"


async def command(*argv: str, given: object = None, limit: float = 90.0) -> str:
    """Run a command in this folder; what it prints."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe, cwd=FOLDER)
    try:
        out, err = await asyncio.wait_for(process.communicate(json.dumps(given).encode()), limit)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{argv}: {process.returncode}\n{err.decode()[-3000:]}"
    return out.decode()


@pytest.fixture(scope="session")
async def node_modules() -> None:
    """What the lock file names, installed once; a second run of the tests at the same time waits."""
    done = FOLDER / "node_modules" / ".package-lock.json"
    with (FOLDER / ".npmrc").open() as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not done.exists() or done.stat().st_mtime < LOCK.stat().st_mtime:
            await command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", limit=300)
