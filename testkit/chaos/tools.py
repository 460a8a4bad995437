"""A tool whose result is too large for a checkpoint, so that it waits for the database inside its attempt."""

import asyncio

from pydantic import BaseModel

from longhaul.tools import Registry, Tool, ToolContext

RESULT_BYTES = 1_000_000


class Pause(BaseModel):
    seconds: float


async def large_result(pause: Pause, context: ToolContext) -> str:
    await asyncio.sleep(pause.seconds)
    return f"{context.tool_call_id} ".ljust(RESULT_BYTES, "x")


def registry() -> Registry:
    """For `LONGHAUL_TOOLS`."""
    return Registry([Tool("large_result", "A large result after a pause.", Pause, large_result)])
