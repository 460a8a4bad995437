"""One page of a conversation, newest first: never a tool result without its call, never a page without a person."""

from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from longhaul.db.messages import IN_CONVERSATION
from longhaul.db.models import MessageRow, SessionRow

WIDEN_BY = 200


def _rows(session_id: str, user_id: str) -> Select[Any]:
    return (
        select(*MessageRow.__table__.columns)
        .join(SessionRow, SessionRow.id == MessageRow.session_id)
        .where(MessageRow.session_id == session_id, SessionRow.user_id == user_id, IN_CONVERSATION)
        .order_by(MessageRow.sequence.desc())
    )


async def page(
    connection: AsyncConnection, session_id: str, user_id: str, limit: int, before: int | None
) -> tuple[list[Row[Any]], bool]:
    """Up to `limit` rows before a sequence, oldest first, or a few more by the rules above; and whether older exist."""
    statement = _rows(session_id, user_id)
    if before is not None:
        statement = statement.where(MessageRow.sequence < before)
    found = list((await connection.execute(statement.limit(limit + 1))).all())
    rows, more = found[:limit], len(found) > limit
    if more and rows[-1].role == "tool":
        rows += await _back_to_owner(connection, user_id, rows[-1])
    if more and not any(map(_of_person, rows)):
        statement = _rows(session_id, user_id).where(MessageRow.sequence < rows[-1].sequence).limit(WIDEN_BY)
        older = list((await connection.execute(statement)).all())
        rows += older[: next((index for index, row in enumerate(older) if _of_person(row)), len(older)) + 1]
    rows.reverse()
    return rows, more and rows[0].sequence > 0


def _of_person(row: Row[Any]) -> bool:
    return row.role in ("user", "assistant")


async def _back_to_owner(connection: AsyncConnection, user_id: str, tool: Row[Any]) -> list[Row[Any]]:
    """The rows before a tool row, back to the one that made its call; none if there is no such row."""
    earlier = _rows(tool.session_id, user_id).where(MessageRow.sequence < tool.sequence)
    of_turn = earlier.where(MessageRow.turn_id == tool.turn_id, MessageRow.role == "assistant")
    for row in await connection.execute(of_turn):
        if any(call["id"] == tool.tool_call_id for call in row.tool_calls or ()):
            return list((await connection.execute(earlier.where(MessageRow.sequence >= row.sequence))).all())
    return []
