"""A session and all the work that it has handed on."""

import asyncio
from typing import Any

from fastapi import APIRouter
from sqlalchemy.engine import Row

from api.context import Context, Ctx, OwnSession
from api.problems import RESPONSES
from api.schemas import TreeNode
from copilot.contracts import TurnStatus, Usage
from copilot.db import sessions
from copilot.errors import UnavailableError

router = APIRouter(prefix="/v1", tags=["sessions"], responses=RESPONSES)
ASK_AT_ONCE = 20


@router.get("/sessions/{session_id}/tree", summary="A session and its sub-sessions")
async def tree(session: OwnSession, context: Ctx) -> TreeNode:
    """Status and own usage of each."""
    async with context.database.read() as connection:
        family = await sessions.below(connection, session.root_session_id or session.id)
        rows = [session, *(row for row in family if row.id != session.id)]
        ids = [row.id for row in rows]
        newest = await sessions.newest_turns(connection, ids)
        usage = await sessions.spent(connection, ids)
    gate = asyncio.Semaphore(ASK_AT_ONCE)

    async def standing(row: Row[Any]) -> tuple[str | None, TurnStatus | None]:
        turn = newest.get(row.id)
        if turn is not None and TurnStatus(turn.status).final and row.id != session.id:
            return turn.turn_id, TurnStatus(turn.status)
        async with gate:
            return await _standing(context, row.id, turn)

    standings = dict(zip(ids, await asyncio.gather(*(standing(row) for row in rows)), strict=True))
    nodes: dict[str, TreeNode] = {}
    for row in rows:  # parents come before children
        turn_id, status = standings[row.id]
        nodes[row.id] = TreeNode(
            session_id=row.id,
            title=row.title,
            status=status,
            turn_id=turn_id,
            usage=usage.get(row.id, Usage()),
            children=[],
        )
        parent = nodes.get(row.parent_session_id or "")
        if parent is not None:
            parent.children.append(nodes[row.id])
    return nodes[session.id]


async def _standing(context: Context, session_id: str, turn: Row[Any] | None) -> tuple[str | None, TurnStatus | None]:
    """The newest turn and how it stands: a turn that has no row yet, or was ended by force, only Temporal knows of."""
    try:
        running = await context.live.running(session_id)
    except UnavailableError:
        running = None
        if turn is not None:
            return turn.turn_id, TurnStatus(turn.status)
    if running is not None:
        return running.turn_id, running.status
    if turn is None:
        return None, None
    async with context.database.read() as connection:
        again = await sessions.get_turn(connection, session_id, turn.turn_id)
    status = TurnStatus(again.status) if again is not None else TurnStatus(turn.status)
    return turn.turn_id, status if status.final else TurnStatus.FAILED
