"""A session and all sessions below it."""

import asyncio

from fastapi import APIRouter

from api.dependencies import Dependencies, Deps, OwnSession
from api.ownership import SessionRecord
from api.problems import RESPONSES
from api.schemas.turns import NodeProgress, TreeNode
from longhaul.contracts import Progress, Scope, Usage
from longhaul.db import ledger, sessions, turns
from longhaul.turns.status import progress_from_row

router = APIRouter(prefix="/v1", tags=["sessions"], responses=RESPONSES)
ASK_AT_ONCE = 20


@router.get("/sessions/{session_id}/tree", summary="A session and its sub-sessions")
async def tree(session: OwnSession, deps: Deps) -> TreeNode:
    """Status, progress and cost of each."""
    return await tree_of(deps, session)


async def tree_of(deps: Dependencies, session: SessionRecord) -> TreeNode:
    """A session and those below it as they stand now."""
    async with deps.database.read() as connection:
        below = await sessions.descendants(connection, session.id, session.root_session_id)
        rows = [session, *map(SessionRecord.model_validate, below)]
        ids = [row.id for row in rows]
        newest = await turns.newest_of_each(connection, ids)
        usage = await ledger.usage_of_each(connection, ids)
    gate = asyncio.Semaphore(ASK_AT_ONCE)

    async def newest_progress(row: SessionRecord) -> Progress | None:
        turn = newest.get(row.id)
        if turn is not None and turn.status.final and row.id != session.id:
            return progress_from_row(turn)
        async with gate:
            return await deps.turns.newest_progress(row.id, turn)

    current = await asyncio.gather(*map(newest_progress, rows))
    nodes = {row.id: _node(row, now, usage.get(row.id, Usage())) for row, now in zip(rows, current, strict=True)}
    for row in reversed(rows):  # Parents come before children, so each node is complete when its parent takes it.
        parent = nodes.get(row.parent_session_id or "")
        if parent is not None and row.id != session.id:
            parent.children.insert(0, nodes[row.id])
            parent.total_usage += nodes[row.id].total_usage
    return nodes[session.id]


def _scope(row: SessionRecord) -> Scope:
    return Scope.model_validate(row.scope or {})


def _node(row: SessionRecord, now: Progress | None, usage: Usage) -> TreeNode:
    progress = None
    if now is not None:
        progress = NodeProgress(
            round=now.round,
            tools_running=[tool.name for tool in now.tools_running],
            tools_done=now.tools_done,
            started_at=now.started_at,
            duration_ms=now.duration_ms,
            error=now.error,
        )
    return TreeNode(
        session_id=row.id,
        title=row.title,
        depth=_scope(row).depth,
        status=now.status if now is not None else None,
        turn_id=now.turn_id if now is not None else None,
        progress=progress,
        usage=usage,
        total_usage=usage,
        children=[],
    )
