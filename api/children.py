"""How sub-sessions stand that went on when the turn that started them had ended."""

import asyncio

from api.context import Context
from longhaul.contracts import SUB_STATES, Progress, SubSessionRecord, SubSessionState
from longhaul.db import turns
from longhaul.errors import UnavailableError


async def with_live_children(context: Context, progress: Progress) -> Progress:
    """An ended turn's progress, in which what ran at its end stands as it does now."""
    if all(record.status is not SubSessionState.RUNNING for record in progress.sub_sessions):
        return progress
    records = await asyncio.gather(*(_now(context, record) for record in progress.sub_sessions))
    return progress.model_copy(update={"sub_sessions": records})


async def _now(context: Context, record: SubSessionRecord) -> SubSessionRecord:
    if record.status is not SubSessionState.RUNNING:
        return record
    try:
        turn_id = record.turn_id or await _newest(context, record.sub_session_id)
        found = await context.live.progress(record.sub_session_id, turn_id)
    except UnavailableError:
        return record
    if found is None:  # deleted meanwhile
        return record.model_copy(update={"status": SubSessionState.ERROR})
    standing = {"turn_id": turn_id, "status": SUB_STATES[found.status], "ended_at": found.ended_at}
    return record.model_copy(update=standing)


async def _newest(context: Context, session_id: str) -> str:
    async with context.database.read() as connection:
        newest = await turns.newest(connection, session_id)
    return newest.turn_id if newest is not None else ""
