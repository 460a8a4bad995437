"""What a turn has spent its time on."""

from datetime import timedelta
from typing import Literal

from fastapi import APIRouter

from api.dependencies import Deps, OwnSession
from api.problems import RESPONSES
from api.schemas.turns import Span, Timeline
from longhaul.db import conversation, turns
from longhaul.db.messages import StoredMessage
from longhaul.errors import NotFoundError

router = APIRouter(prefix="/v1", tags=["turns"], responses=RESPONSES)


@router.get("/sessions/{session_id}/turns/{turn_id}/timeline", summary="Timeline of a turn")
async def timeline(session: OwnSession, turn_id: str, deps: Deps) -> Timeline:
    """Model calls and tool calls that have ended, in the order in which they began, and follow-ups as they were taken.

    The time between them is waiting: for a worker, for a retry, for the database.
    """
    async with deps.database.read() as connection:
        turn = await turns.get(connection, session.id, turn_id)
        if turn is None:
            raise NotFoundError(f"There is no turn {turn_id} in session {session.id}.")
        rows = await conversation.rows_of_turn(connection, turn_id)
    spans = [span for row in rows if (span := _span(row)) is not None]
    return Timeline(
        turn_id=turn_id,
        started_at=turn.started_at,
        ended_at=turn.ended_at,
        spans=sorted(spans, key=lambda span: span.started_at),
    )


def _span(row: StoredMessage) -> Span | None:
    """What a row tells of. It is stored when that has ended."""
    kind: Literal["model", "tool", "follow_up"]
    if row.kind == "follow_up":
        kind, name = "follow_up", ""
    elif row.role == "tool":
        kind, name = "tool", row.tool_name or ""
    elif row.role == "assistant" and row.duration_ms is not None:
        kind, name = "model", ""
    else:
        return None
    took = row.duration_ms or 0
    return Span(
        kind=kind,
        name=name,
        round=row.round,
        tool_call_id=row.tool_call_id,
        started_at=row.created_at - timedelta(milliseconds=took),
        duration_ms=took,
        is_error=row.is_error,
    )
