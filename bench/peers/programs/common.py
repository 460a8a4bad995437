"""What every peer's program does: poll, say `ready`, and time the turns that it is asked for.

A line on the standard input is `TURNS AT_ONCE`; the answer is one line of JSON. This file runs in the peer's
environment and imports nothing but the standard library.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

MODEL = "offline-standard"
QUESTION = "What is 6*7?"


async def serve(turn: Callable[[], Awaitable[str]]) -> None:
    """Answer requests until the input ends."""
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        turns, at_once = map(int, line.split())
        free = asyncio.Semaphore(at_once)
        seconds: list[float] = []

        async def one(free: asyncio.Semaphore = free, seconds: list[float] = seconds) -> None:
            async with free:
                begun = time.perf_counter()
                answer = await turn()
                seconds.append(time.perf_counter() - begun)
                if "word199" not in answer:
                    raise RuntimeError(f"not the model's answer: {answer[-300:]!r}")

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(turns)))
        print(json.dumps({"seconds": seconds, "all": time.perf_counter() - begun}), flush=True)
