"""One page of a conversation, newest first: never a tool result without its call, never a page without a person."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from copilot.db.messages import IN_CONVERSATION
from copilot.db.models import MessageRow, SessionRow

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
    """Up to `limit` rows before a sequence, oldest first, or a few more by the rules above; and whether older ones exist."""
    statement = _rows(session_id, user_id)
    if before is not None:
        statement = statement.where(MessageRow.sequence < before)
    found = list((await connection.execute(statement.limit(limit + 1))).all())
    rows, more = found[:limit], len(found) > limit
    while more and rows and (needed := _older_needed(rows)):
        older = await _older(connection, session_id, user_id, rows[-1].sequence, needed)
        if not older:
            break
        rows += older
        more = rows[-1].sequence > 0
        if needed == "person":
            break
    rows.reverse()
    return rows, more


def _older_needed(rows: Sequence[Row[Any]]) -> str | None:
    if rows[-1].role == "tool":
        return "owner"
    return None if any(row.role in ("user", "assistant") for row in rows) else "person"


async def _older(
    connection: AsyncConnection, session_id: str, user_id: str, before: int, needed: str
) -> list[Row[Any]]:
    """Rows back to the owner of the oldest tool row, or to the first user or assistant row; none if out of reach."""
    statement = _rows(session_id, user_id).where(MessageRow.sequence < before).limit(WIDEN_BY)
    found = list((await connection.execute(statement)).all())
    if needed == "person":
        for index, row in enumerate(found):
            if row.role in ("user", "assistant"):
                return found[: index + 1]
        return found
    oldest = await connection.execute(
        select(MessageRow.tool_call_id, MessageRow.turn_id).where(
            MessageRow.session_id == session_id, MessageRow.sequence == before
        )
    )
    tool = oldest.one()
    for index, row in enumerate(found):
        owns = row.turn_id == tool.turn_id and any(call["id"] == tool.tool_call_id for call in row.tool_calls or ())
        if owns:
            return found[: index + 1]
    return []
