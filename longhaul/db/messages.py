"""Message rows: accept what people send, append what a turn produces.

Two rules hold here. A session's sequences are gapless and unique: the session's row is locked and counts. Every append
may be repeated: ids derive from what the row is (`row_id`), and a row that is there stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from longhaul.db.models import MessageRow, SessionRow, utc_now
from longhaul.errors import InboxFullError, NotFoundError

NAMESPACE = UUID("5f1f4a8e-6f0a-4f55-9d8c-2f4b8f6c1d77")
IN_CONVERSATION = MessageRow.sequence.is_not(None)
ROWS = select(*MessageRow.__table__.columns)
# Statements of every turn are built once: building them showed in the worker's profile.
INSERT = insert(MessageRow)
LOCK = (
    update(SessionRow)
    .where(SessionRow.id == bindparam("session"))
    .values(updated_at=bindparam("now"))
    .returning(SessionRow.next_sequence)
)
LOCK_OWN = LOCK.where(SessionRow.user_id == bindparam("user"))
ADVANCE = update(SessionRow).where(SessionRow.id == bindparam("session")).values(next_sequence=bindparam("following"))
STORED = select(MessageRow.id).where(MessageRow.id.in_(bindparam("ids", expanding=True)))
PLACED = select(MessageRow.id, MessageRow.sequence, MessageRow.turn_id, MessageRow.round).where(
    MessageRow.id.in_(bindparam("ids", expanding=True))
)
PLACE = (
    update(MessageRow)
    .where(MessageRow.id == bindparam("message"))
    .values(sequence=bindparam("at"), turn_id=bindparam("turn"), round=bindparam("in_round"), kind=bindparam("as_kind"))
)
WAITING_OR_HERE = select(MessageRow.id, MessageRow.turn_id, MessageRow.sequence).where(
    MessageRow.session_id == bindparam("session"),
    MessageRow.sequence.is_(None) | (MessageRow.id == bindparam("message")),
)
OF_ROUND = ROWS.where(
    MessageRow.turn_id == bindparam("turn"), MessageRow.round == bindparam("in_round"), IN_CONVERSATION
).order_by(MessageRow.sequence)
BY_ID = ROWS.where(MessageRow.id == bindparam("message"))
SHOWN_TO_MODEL = ROWS.where(
    MessageRow.session_id == bindparam("session"),
    MessageRow.sequence > bindparam("after"),
    MessageRow.role != "reasoning",
).order_by(MessageRow.sequence)
NEWEST_CALLS = (
    select(MessageRow.role, MessageRow.tool_calls, MessageRow.tool_call_id, MessageRow.turn_id, MessageRow.round)
    .where(MessageRow.session_id == bindparam("session"), IN_CONVERSATION, MessageRow.role.in_(("assistant", "tool")))
    .order_by(MessageRow.sequence.desc())
    .limit(bindparam("last"))
)


def row_id(*parts: object) -> str:
    """The id of the row that is about these parts, e.g. (turn, round, "assistant"): the same on every try."""
    return str(uuid5(NAMESPACE, ":".join(map(str, parts))))


def storable(text: str) -> str:
    """`text` without what PostgreSQL cannot hold in a text column: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Accepted:
    """What became of a message that was handed in. `placed_in`: the turn that has taken it already."""

    row_id: str
    is_new: bool
    waiting: int
    placed_in: str | None


async def lock_session(connection: AsyncConnection, session_id: str, user_id: str | None = None) -> int:
    """Lock a session's row until the transaction ends; its next sequence.

    Raises:
        NotFoundError: there is no such session, or it is not this user's.
    """
    given = {"session": session_id, "now": utc_now()}
    if user_id is not None:
        following: int | None = await connection.scalar(LOCK_OWN, {**given, "user": user_id})
    else:
        following = await connection.scalar(LOCK, given)
    if following is None:
        raise NotFoundError(f"There is no session {session_id}.")
    return following


async def accept(
    connection: AsyncConnection,
    *,
    session_id: str,
    user_id: str,
    message_id: str,
    content: str,
    context: dict[str, Any] | None,
    limit: int,
) -> Accepted:
    """Keep a message until a turn takes it; the same `message_id` again changes nothing.

    Raises:
        NotFoundError: no such session of this user.
        InboxFullError: `limit` messages (0: no limit) wait already.
    """
    await lock_session(connection, session_id, user_id)
    found = row_id(session_id, "user", message_id)
    rows = await connection.execute(WAITING_OR_HERE, {"session": session_id, "message": found})
    here = {row.id: row for row in rows}
    waiting = sum(1 for row in here.values() if row.sequence is None)
    if found in here:
        placed = here[found].turn_id if here[found].sequence is not None else None
        return Accepted(found, is_new=False, waiting=waiting, placed_in=placed)
    if limit and waiting >= limit:
        raise InboxFullError(waiting, limit)
    await connection.execute(
        INSERT,
        {
            "id": found,
            "session_id": session_id,
            "client_message_id": message_id,
            "role": "user",
            "content": storable(content),
            "context": context,
        },
    )
    return Accepted(found, is_new=True, waiting=waiting + 1, placed_in=None)


async def append(connection: AsyncConnection, session_id: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Append those of `rows` (column values with an `id`) that are not stored yet, in order; the ids appended."""
    following = await lock_session(connection, session_id)
    stored = await connection.scalars(STORED, {"ids": [row["id"] for row in rows]})
    known = set(stored)
    fresh: dict[str, dict[str, Any]] = {row["id"]: row for row in rows if row["id"] not in known}
    if not fresh:
        return []
    for offset, row in enumerate(fresh.values()):
        values = {**row, "session_id": session_id, "sequence": following + offset}
        values["content"] = storable(values.get("content", ""))
        await connection.execute(INSERT, values)
    await _advance(connection, session_id, following + len(fresh))
    return list(fresh)


async def place(
    connection: AsyncConnection,
    session_id: str,
    message_ids: Sequence[str],
    *,
    turn_id: str,
    round_: int,
    kind: str,
) -> list[str]:
    """Give waiting messages their place in the conversation, in this order.

    Returns:
        The ids that belong to this turn and round now; a repeated call returns the same. Left out: ids placed by
        another turn, and ids without a row (their sender was told that they were not accepted).
    """
    following = start = await lock_session(connection, session_id)
    ids = {row_id(session_id, "user", message_id): message_id for message_id in message_ids}
    found = await connection.execute(PLACED, {"ids": list(ids)})
    rows = {row.id: row for row in found}
    taken = []
    for row_key, message_id in ids.items():
        row = rows.get(row_key)
        if row is None:
            continue
        if row.sequence is None:
            given = {"message": row_key, "at": following, "turn": turn_id, "in_round": round_, "as_kind": kind}
            await connection.execute(PLACE, given)
            following += 1
            taken.append(message_id)
        elif row.turn_id == turn_id and row.round == round_:
            taken.append(message_id)
    if following > start:
        await _advance(connection, session_id, following)
    return taken


async def _advance(connection: AsyncConnection, session_id: str, following: int) -> None:
    await connection.execute(ADVANCE, {"session": session_id, "following": following})


async def waiting(connection: AsyncConnection, session_id: str) -> Sequence[Row[Any]]:
    """Messages that no turn has taken yet, oldest first."""
    found = await connection.execute(
        ROWS.where(MessageRow.session_id == session_id, MessageRow.sequence.is_(None)).order_by(
            MessageRow.created_at, MessageRow.id
        )
    )
    return found.all()


async def of_round(connection: AsyncConnection, turn_id: str, round_: int) -> Sequence[Row[Any]]:
    """A round's rows in order."""
    found = await connection.execute(OF_ROUND, {"turn": turn_id, "in_round": round_})
    return found.all()


async def of_turn(connection: AsyncConnection, turn_id: str, after: int = -1) -> Sequence[Row[Any]]:
    """A turn's rows behind a sequence, in order."""
    found = await connection.execute(
        ROWS.where(MessageRow.turn_id == turn_id, MessageRow.sequence > after).order_by(MessageRow.sequence)
    )
    return found.all()


async def get(connection: AsyncConnection, message_row_id: str) -> Row[Any] | None:
    """One row, or None."""
    found = await connection.execute(BY_ID, {"message": message_row_id})
    return found.first()


async def conversation(connection: AsyncConnection, session_id: str, after: int = -1) -> Sequence[Row[Any]]:
    """A session's rows behind a sequence, oldest first, reasoning left out: what a model may see."""
    found = await connection.execute(SHOWN_TO_MODEL, {"session": session_id, "after": after})
    return found.all()


async def count(connection: AsyncConnection, session_id: str) -> int:
    """How many rows a conversation has."""
    found = await connection.scalar(
        select(func.count()).select_from(MessageRow).where(MessageRow.session_id == session_id, IN_CONVERSATION)
    )
    return found or 0


async def open_tool_calls(connection: AsyncConnection, session_id: str, last: int = 400) -> list[dict[str, Any]]:
    """Tool calls among the newest `last` rows that have no result row: `{id, name, turn_id, round}`, oldest first."""
    found = await connection.execute(NEWEST_CALLS, {"session": session_id, "last": last})
    rows = list(found)
    answered = {(row.turn_id, row.tool_call_id) for row in rows if row.role == "tool"}
    return [
        {"id": call["id"], "name": call["function"]["name"], "turn_id": row.turn_id, "round": row.round}
        for row in reversed(rows)
        for call in row.tool_calls or ()
        if (row.turn_id, call["id"]) not in answered
    ]


def tool_row(
    turn_id: str,
    round_: int,
    call_id: str,
    name: str,
    content: str,
    *,
    is_error: bool = False,
    duration_ms: int | None = None,
    at: datetime | None = None,
) -> dict[str, Any]:
    """The row that holds a tool call's result."""
    return {
        "id": row_id(turn_id, round_, "tool", call_id),
        "role": "tool",
        "content": content,
        "tool_call_id": call_id,
        "tool_name": name,
        "turn_id": turn_id,
        "round": round_,
        "is_error": is_error,
        "duration_ms": duration_ms,
        "created_at": at or utc_now(),
    }
