"""How far the running tool calls of a turn are: kept in Redis for those who ask for the turn's progress.

The stream shows the same as `data-tool-progress` parts. Without Redis nobody sees it, and nothing else changes.
"""

import asyncio
import logging

from pydantic import ValidationError
from redis.asyncio import Redis

from longhaul.contracts import Progress, ToolProgress
from longhaul.redis import FAULTS
from longhaul.streams.events import UNSEALED_TTL_S, Part, data_part

log = logging.getLogger(__name__)
#: A Redis that does not answer in time holds no poll up.
READ_S = 0.2


def progress_key(turn_id: str) -> str:
    """A hash: for each tool call that reported progress, the newest report as JSON."""
    return f"longhaul:turn:{{{turn_id}}}:tools"


def tool_progress_part(tool_call_id: str, name: str, progress: ToolProgress) -> Part:
    """Clients show it beside the call, the newest only, and do not keep it."""
    data = {"tool_call_id": tool_call_id, "tool": name, **progress.model_dump()}
    return {"id": tool_call_id, **data_part("tool-progress", data, transient=True)}


async def keep(redis: "Redis", turn_id: str, tool_call_id: str, progress: ToolProgress) -> None:
    """Keep the newest report of a call."""
    try:
        async with redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(progress_key(turn_id), tool_call_id, progress.model_dump_json())
            pipeline.expire(progress_key(turn_id), UNSEALED_TTL_S)
            await pipeline.execute()
    except FAULTS as error:
        log.debug("the progress of a tool call of turn %s is not kept: %s", turn_id, error)


async def with_tool_progress(redis: "Redis", progress: Progress) -> Progress:
    """The progress of a turn with that of its running tool calls; without it while Redis is away."""
    running = progress.tools_running
    if not running:
        return progress
    try:
        async with asyncio.timeout(READ_S):
            kept = await redis.hmget(progress_key(progress.turn_id), [record.tool_call_id for record in running])
    except FAULTS as error:
        log.debug("the progress of tool calls of turn %s cannot be read: %s", progress.turn_id, error)
        return progress
    records = [
        record.model_copy(update={"progress": _decoded(report)}) for record, report in zip(running, kept, strict=True)
    ]
    return progress.model_copy(update={"tools_running": records})


def _decoded(report: bytes | str | None) -> ToolProgress | None:
    try:
        return ToolProgress.model_validate_json(report) if report else None
    except ValidationError as error:
        log.warning("a stored progress of a tool call cannot be read: %s", error)
        return None
