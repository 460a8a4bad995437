"""Message rows: accept what people send, place it in a turn, append what a turn produces.

Two rules hold here. A session's sequences are gapless and unique: the session's row is locked and counts. Every append
may be repeated: ids derive from what the row is (`row_id`), and a row that is stored already stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from sqlalchemy import bindparam, insert, select, update

from longhaul.db.connection import Connection
from longhaul.db.models import MessageRow, SessionRow, columns_of, utc_now
from longhaul.errors import InboxFullError, MessageIdUsedError, NotFoundError

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


class WaitingMessage(NamedTuple):
    """A message that was accepted and that no turn has taken yet."""

    client_message_id: str
    content: str
    context: dict[str, Any] | None
    created_at: datetime


@dataclass(frozen=True)
class Accepted:
    """The result of accepting a message. `placed_in`: the turn that has taken it already."""

    row_id: str
    waiting: int
    placed_in: str | None


IN_CONVERSATION = MessageRow.sequence.is_not(None)
STORED_MESSAGES = select(*columns_of(MessageRow, StoredMessage)).where(IN_CONVERSATION)
# Statements of every turn are built once: building them showed in the worker's profile.
INSERT = insert(MessageRow)
LOCK = (
    update(SessionRow)
    .where(SessionRow.id == bindparam("session"))
    .values(updated_at=bindparam("now"))
    .returning(SessionRow.next_sequence)
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
PLACES = select(MessageRow.id, MessageRow.sequence, MessageRow.turn_id, MessageRow.round).where(
    MessageRow.id.in_(bindparam("ids", expanding=True))
)
PLACE = (
    update(MessageRow)
    .where(MessageRow.id == bindparam("message"))
    .values(sequence=bindparam("at"), turn_id=bindparam("turn"), round=bindparam("in_round"), kind=bindparam("as_kind"))
)
WAITING_OR_SAME = select(MessageRow.id, MessageRow.turn_id, MessageRow.sequence).where(
    MessageRow.session_id == bindparam("session"),
    MessageRow.sequence.is_(None) | (MessageRow.id == bindparam("message")),
)
WAITING_OR_PLACED = (
    select(MessageRow.id, MessageRow.client_message_id, MessageRow.sequence)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.client_message_id.is_not(None),
        MessageRow.sequence.is_(None)
        | ((MessageRow.turn_id == bindparam("turn")) & (MessageRow.round == bindparam("in_round"))),
    )
    .order_by(MessageRow.sequence.nulls_last(), MessageRow.created_at, MessageRow.id)
)
WAITING = (
    select(*columns_of(MessageRow, WaitingMessage))
    .where(MessageRow.session_id == bindparam("session"), MessageRow.sequence.is_(None))
    .order_by(MessageRow.created_at, MessageRow.id)
)
CONTENT = select(MessageRow.content).where(MessageRow.id == bindparam("message"))
BY_ID = STORED_MESSAGES.where(MessageRow.id == bindparam("message"))


def row_id(*parts: object) -> str:
    """The id of the row that is about these parts, e.g. (turn, round, "assistant"): the same on every try."""
    return str(uuid5(NAMESPACE, ":".join(map(str, parts))))


def replace_unstorable(text: str) -> str:
    """`text` without what PostgreSQL cannot hold in a text column: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


async def lock_session(connection: Connection, session_id: str, user_id: str | None = None) -> int:
    """Lock a session's row until the transaction ends; its next sequence.

    Raises:
        NotFoundError: there is no such session, or it is not this user's.
    """
    values = {"session": session_id, "now": utc_now()}
    if user_id is not None:
        following: int | None = await connection.scalar(LOCK_OWN, {**values, "user": user_id})
    else:
        following = await connection.scalar(LOCK, values)
    if following is None:
        raise NotFoundError(f"There is no session {session_id}.")
    return following


async def accept(
    connection: Connection,
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
        MessageIdUsedError: the session has a message of this id with other content.
    """
    content = replace_unstorable(content)
    await lock_session(connection, session_id, user_id)
    own_id = row_id(session_id, "user", message_id)
    rows = {
        row.id: row for row in await connection.execute(WAITING_OR_SAME, {"session": session_id, "message": own_id})
    }
    waiting = sum(1 for row in rows.values() if row.sequence is None)
    if (same := rows.get(own_id)) is not None:
        if await connection.scalar(CONTENT, {"message": own_id}) != content:
            raise MessageIdUsedError(message_id)
        placed_in = same.turn_id if same.sequence is not None else None
        return Accepted(own_id, waiting, placed_in)
    if limit and waiting >= limit:
        raise InboxFullError(waiting, limit)
    await connection.execute(
        INSERT,
        {
            "id": own_id,
            "session_id": session_id,
            "client_message_id": message_id,
            "role": "user",
            "content": content,
            "context": context,
        },
    )
    return Accepted(own_id, waiting + 1, placed_in=None)


async def _reserve(connection: Connection, session_id: str, count: int) -> int:
    """Lock a session's row until the transaction ends, and reserve its next `count` sequences; the first of them.

    Raises:
        NotFoundError: there is no such session.
    """
    following: int | None = await connection.scalar(RESERVE, {"session": session_id, "count": count, "now": utc_now()})
    if following is None:
        raise NotFoundError(f"There is no session {session_id}.")
    return following - count


async def _return_unused(connection: Connection, session_id: str, following: int) -> None:
    """Set the next sequence back, under the lock that reserved too many."""
    await connection.execute(ADVANCE, {"session": session_id, "following": following})


async def append(connection: Connection, session_id: str, rows: Sequence[NewMessage]) -> list[str]:
    """Append those of `rows` that are not stored yet, in order; the ids appended."""
    unique = {row.id: row for row in rows}
    first = await _reserve(connection, session_id, len(unique))
    stored = set(await connection.scalars(STORED_IDS, {"ids": list(unique)}))
    fresh = [row for row in unique.values() if row.id not in stored]
    if stored:
        await _return_unused(connection, session_id, first + len(fresh))
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


async def place_in_turn(
    connection: Connection, session_id: str, message_ids: Sequence[str], *, turn_id: str, round_: int, kind: str
) -> list[str]:
    """Give waiting messages their place in the conversation, in this order.

    Returns:
        The ids that belong to this turn and round now; a repeated call returns the same. Left out: ids placed by
        another turn, and ids without a row (their sender got an error instead of an acceptance).
    """
    ids = {row_id(session_id, "user", message_id): message_id for message_id in message_ids}
    first = await _reserve(connection, session_id, len(ids))
    rows = {row.id: row for row in await connection.execute(PLACES, {"ids": list(ids)})}
    waiting = [id_ for id_ in ids if id_ in rows and rows[id_].sequence is None]
    if len(waiting) < len(ids):
        await _return_unused(connection, session_id, first + len(waiting))
    await _place(connection, waiting, first, turn_id, round_, kind)
    already = {row.id for row in rows.values() if (row.turn_id, row.round) == (turn_id, round_)}
    return [message_id for id_, message_id in ids.items() if id_ in already or id_ in waiting]


async def place_all_waiting(
    connection: Connection, session_id: str, *, turn_id: str, round_: int, kind: str
) -> list[str]:
    """Give all waiting messages of a session their place in the conversation, in the order of their acceptance.

    Returns:
        The ids that belong to this turn and round now; a repeated call returns them again.
    """
    first = await lock_session(connection, session_id)
    rows = await connection.execute(WAITING_OR_PLACED, {"session": session_id, "turn": turn_id, "in_round": round_})
    waiting = [row.id for row in rows if row.sequence is None]
    if waiting:
        await _place(connection, waiting, first, turn_id, round_, kind)
        await connection.execute(ADVANCE, {"session": session_id, "following": first + len(waiting)})
    return [row.client_message_id for row in rows]


async def _place(connection: Connection, ids: Sequence[str], first: int, turn_id: str, round_: int, kind: str) -> None:
    places = [
        {"message": id_, "at": sequence, "turn": turn_id, "in_round": round_, "as_kind": kind}
        for sequence, id_ in enumerate(ids, start=first)
    ]
    if places:
        await connection.execute(PLACE, places)


async def list_waiting(connection: Connection, session_id: str) -> list[WaitingMessage]:
    """Messages that no turn has taken yet, oldest first."""
    return [WaitingMessage._make(row) for row in await connection.execute(WAITING, {"session": session_id})]


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
