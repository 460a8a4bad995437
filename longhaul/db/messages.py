"""Message rows: append what a turn produces, read one back, lock the session around it.

Two rules hold here. A session's sequences are gapless and unique: the session's row is locked and counts. Every append
may be repeated: ids derive from what the row is (`row_id`), and a row that is stored already stays as it is.
`acceptance.py` has the messages that people send, until a turn takes them.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from sqlalchemy import bindparam, insert, select, update

from longhaul.db.connection import Connection
from longhaul.db.models import MessageRow, SessionRow, columns_of, utc_now
from longhaul.errors import NotFoundError

NAMESPACE = UUID("5f1f4a8e-6f0a-4f55-9d8c-2f4b8f6c1d77")


class StoredMessage(NamedTuple):
    """One row of a conversation.

    A named tuple: a model call reads thousands of rows, and a frozen dataclass takes 3 µs to build instead of 0.3.
    """

    id: str
    session_id: str
    sequence: int
    role: str
    kind: str
    content: str
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    tool_name: str | None
    turn_id: str | None
    round: int | None
    client_message_id: str | None
    is_error: bool
    context: dict[str, Any] | None
    finish_reason: str | None
    usage: dict[str, Any] | None
    created_at: datetime
    duration_ms: int | None
    model: str | None = None
    version_of: str | None = None
    replaced_by: str | None = None
    client_tools: str | None = None


class NewMessage(NamedTuple):
    """A row to append; its session and sequence are those of the append."""

    id: str
    role: str
    content: str = ""
    kind: str = "message"
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    turn_id: str | None = None
    round: int | None = None
    client_message_id: str | None = None
    is_error: bool = False
    context: dict[str, Any] | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    created_at: datetime | None = None
    duration_ms: int | None = None
    model: str | None = None
    version_of: str | None = None


class LockedSession(NamedTuple):
    """A session whose row is locked. `stopped_turn_id`: the newest turn that a person stopped."""

    next_sequence: int
    stopped_turn_id: str | None


IN_CONVERSATION = MessageRow.sequence.is_not(None)
STORED_MESSAGES = select(*columns_of(MessageRow, StoredMessage)).where(IN_CONVERSATION)
# Statements of every turn are built once: building them showed in the worker's profile.
INSERT = insert(MessageRow)
LOCK = (
    update(SessionRow)
    .where(SessionRow.id == bindparam("session"))
    .values(updated_at=bindparam("now"))
    .returning(SessionRow.next_sequence, SessionRow.stopped_turn_id)
)
LOCK_OWN = LOCK.where(SessionRow.user_id == bindparam("user"))
RESERVE = (
    update(SessionRow)
    .where(SessionRow.id == bindparam("session"))
    .values(next_sequence=SessionRow.next_sequence + bindparam("count"), updated_at=bindparam("now"))
    .returning(SessionRow.next_sequence)
)
ADVANCE = update(SessionRow).where(SessionRow.id == bindparam("session")).values(next_sequence=bindparam("following"))
STORED_IDS = select(MessageRow.id).where(MessageRow.id.in_(bindparam("ids", expanding=True)))
BY_ID = STORED_MESSAGES.where(MessageRow.id == bindparam("message"))


def row_id(*parts: object) -> str:
    """The id of the row that is about these parts, e.g. (turn, round, "assistant"): the same on every try."""
    return str(uuid5(NAMESPACE, ":".join(map(str, parts))))


def replace_unstorable(text: str) -> str:
    """`text` without what PostgreSQL cannot hold in a text column: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


async def lock_session(connection: Connection, session_id: str, user_id: str | None = None) -> LockedSession:
    """Lock a session's row until the transaction ends.

    Raises:
        NotFoundError: there is no such session, or it is not this user's.
    """
    values = {"session": session_id, "now": utc_now()}
    if user_id is not None:
        row = (await connection.execute(LOCK_OWN, {**values, "user": user_id})).first()
    else:
        row = (await connection.execute(LOCK, values)).first()
    if row is None:
        raise NotFoundError(f"There is no session {session_id}.")
    return LockedSession._make(row)


async def _reserve(connection: Connection, session_id: str, count: int) -> int:
    """Lock a session's row until the transaction ends, and reserve its next `count` sequences; the first of them.

    Raises:
        NotFoundError: there is no such session.
    """
    following: int | None = await connection.scalar(RESERVE, {"session": session_id, "count": count, "now": utc_now()})
    if following is None:
        raise NotFoundError(f"There is no session {session_id}.")
    return following - count


async def append(connection: Connection, session_id: str, rows: Sequence[NewMessage]) -> list[str]:
    """Append those of `rows` that are not stored yet, in order; the ids appended."""
    unique = {row.id: row for row in rows}
    first = await _reserve(connection, session_id, len(unique))
    stored = set(await connection.scalars(STORED_IDS, {"ids": list(unique)}))
    fresh = [row for row in unique.values() if row.id not in stored]
    if stored:
        # More sequences are reserved than needed. The session is still locked, so return them.
        await connection.execute(ADVANCE, {"session": session_id, "following": first + len(fresh)})
    if not fresh:
        return []
    now = utc_now()
    values = [
        {
            **row._asdict(),
            "session_id": session_id,
            "sequence": sequence,
            "content": replace_unstorable(row.content),
            "created_at": row.created_at or now,
        }
        for sequence, row in enumerate(fresh, start=first)
    ]
    await connection.execute(INSERT, values)
    return [row.id for row in fresh]


async def get(connection: Connection, message_row_id: str) -> StoredMessage | None:
    """One row of a conversation, or None; a message that still waits is not in its conversation yet."""
    row = (await connection.execute(BY_ID, {"message": message_row_id})).first()
    return StoredMessage._make(row) if row is not None else None


def tool_row(
    turn_id: str,
    round_: int,
    call_id: str,
    name: str,
    content: str,
    *,
    is_error: bool = False,
    duration_ms: int | None = None,
) -> NewMessage:
    """The row that holds a tool call's result."""
    return NewMessage(
        id=row_id(turn_id, round_, "tool", call_id),
        role="tool",
        content=content,
        tool_call_id=call_id,
        tool_name=name,
        turn_id=turn_id,
        round=round_,
        is_error=is_error,
        duration_ms=duration_ms,
    )
