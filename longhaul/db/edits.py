"""Changes of a conversation that are no turn: add a message, delete an exchange; and what a turn that begins changes:
a retry, and a turn that takes another one's place.

Nothing is removed. A row that leaves the conversation keeps its sequence, and `replaced_by` says why it left.
"""

from typing import NamedTuple

from sqlalchemy import and_, bindparam, func, or_, select, update

from longhaul.contracts import TurnStatus
from longhaul.db import messages, turns
from longhaul.db.connection import Connection
from longhaul.db.messages import BY_ID, IN_CONVERSATION, NewMessage, StoredMessage, lock_session, row_id
from longhaul.db.models import DELETED, MessageRow, SessionRow
from longhaul.db.turns import NewTurn
from longhaul.db.versions import of_message, require_idle, restore_summary
from longhaul.errors import MessageIdUsedError, NotFoundError

NOT_DELETED = or_(MessageRow.replaced_by.is_(None), MessageRow.replaced_by != DELETED)
NAMED = (
    select(
        MessageRow.sequence,
        MessageRow.role,
        MessageRow.turn_id,
        MessageRow.round,
        MessageRow.tool_calls,
        MessageRow.replaced_by,
    )
    .where(
        MessageRow.session_id == bindparam("session"),
        or_(MessageRow.id == bindparam("message"), MessageRow.client_message_id == bindparam("message")),
        IN_CONVERSATION,
        NOT_DELETED,
    )
    .order_by(MessageRow.sequence)
    .limit(1)
)
OF_TURN = (
    select(MessageRow.sequence, MessageRow.role, MessageRow.kind, MessageRow.client_message_id, MessageRow.replaced_by)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.turn_id == bindparam("turn"),
        IN_CONVERSATION,
        NOT_DELETED,
    )
    .order_by(MessageRow.sequence)
)
LAST_RESULT = select(func.max(MessageRow.sequence)).where(
    MessageRow.session_id == bindparam("session"),
    MessageRow.turn_id == bindparam("turn"),
    MessageRow.round == bindparam("in_round"),
    MessageRow.role == "tool",
)
_VISIBLE = (MessageRow.session_id == bindparam("session"), MessageRow.replaced_by.is_(None), IN_CONVERSATION)
ASKED_AT = select(func.max(MessageRow.sequence)).where(
    *_VISIBLE, MessageRow.role == "user", MessageRow.sequence <= bindparam("until")
)
ASKED = (
    select(MessageRow.client_message_id, MessageRow.version_of)
    .where(*_VISIBLE, MessageRow.role == "user", MessageRow.sequence <= bindparam("until"))
    .order_by(MessageRow.sequence.desc())
    .limit(1)
)
NEXT_AT = select(func.min(MessageRow.sequence)).where(
    *_VISIBLE,
    or_(MessageRow.role == "user", and_(MessageRow.role == "system", MessageRow.kind == "message")),
    MessageRow.sequence > bindparam("behind"),
)
DELETE = (
    update(MessageRow)
    .where(
        *_VISIBLE,
        MessageRow.kind != "summary",
        MessageRow.sequence >= bindparam("first"),
        MessageRow.sequence < bindparam("end"),
    )
    .values(replaced_by=DELETED)
)
VISIBLE_OF_TURN = (
    select(MessageRow.id, MessageRow.role, MessageRow.tool_calls)
    .where(MessageRow.turn_id == bindparam("turn"), MessageRow.replaced_by.is_(None), IN_CONVERSATION)
    .order_by(MessageRow.sequence.desc())
)
REPLACE_ROW = update(MessageRow).where(MessageRow.id == bindparam("message")).values(replaced_by=bindparam("by_turn"))
FIRST_OF_TURN = select(func.min(MessageRow.sequence)).where(*_VISIBLE, MessageRow.turn_id == bindparam("turn"))
TAKE_TURN_OUT = (
    update(MessageRow)
    .where(*_VISIBLE, MessageRow.kind != "summary", MessageRow.turn_id == bindparam("turn"))
    .values(replaced_by=bindparam("by_turn"))
)
ROLLED_BACK = update(SessionRow).where(SessionRow.id == bindparam("session")).values(rolled_back_turn_id=None)
NO_END = 2**31 - 1


class Place(NamedTuple):
    """The sequences of a message: of one row, or of a call with its results, or of an assistant's whole message.

    `replaced`: it is not part of the conversation any more. `alone`: it was added, and answers nothing.
    """

    first: int
    last: int
    replaced: bool
    alone: bool = False


async def find(connection: Connection, session_id: str, message_id: str) -> Place:
    """Where a message is, by its row's id, by its sender's id, or by the id that chats show: the turn's id, or
    `turn:follow-up`.

    Raises:
        NotFoundError: the conversation has no such message, or it was deleted, or it still waits.
    """
    row = (await connection.execute(NAMED, {"session": session_id, "message": message_id})).first()
    if row is not None:
        last = None
        if row.role == "tool" or row.tool_calls:
            values = {"session": session_id, "turn": row.turn_id, "in_round": row.round}
            last = await connection.scalar(LAST_RESULT, values)
        alone = row.turn_id is None and row.role != "user"
        return Place(row.sequence, max(row.sequence, last or 0), row.replaced_by is not None, alone)
    turn_id, _, follow_up = message_id.partition(":")
    shown, begun = None, not follow_up
    for one in await connection.execute(OF_TURN, {"session": session_id, "turn": turn_id}):
        if one.role == "user":
            if shown is not None:
                break
            begun = one.client_message_id == follow_up if follow_up else one.kind != "follow_up"
            continue
        if begun:
            first = shown.first if shown is not None else one.sequence
            shown = Place(first, one.sequence, one.replaced_by is not None)
    if shown is None:
        raise NotFoundError(f"There is no message {message_id} in session {session_id}.")
    return shown


async def first_version(connection: Connection, session_id: str, message_id: str) -> str:
    """The id of the first version of a person's message; of the message that an answer belongs to.

    Raises:
        NotFoundError: there is no such message, or no message of a person before it.
    """
    known = await of_message(connection, session_id, message_id)
    if known:
        return known[0].version_of or message_id
    place = await find(connection, session_id, message_id)
    asked = (await connection.execute(ASKED, {"session": session_id, "until": place.last})).first()
    if asked is None or asked.client_message_id is None:
        raise NotFoundError(f"There is no message of a person before {message_id} in session {session_id}.")
    return str(asked.version_of or asked.client_message_id)


async def append(
    connection: Connection,
    session_id: str,
    user_id: str,
    message: NewMessage,
    *,
    lost_turn_id: str = "",
) -> StoredMessage:
    """Add a message that starts no turn; the same one again changes nothing. `message.client_message_id` names it.

    Raises:
        NotFoundError: no such session of this user.
        MessageIdUsedError: its id belongs to another message.
        TurnRunsError: a turn runs, or messages wait for one. A row between a call and its result would break the turn.
    """
    await lock_session(connection, session_id, user_id)
    same = await messages.get(connection, message.id)
    if same is not None:
        if (same.role, same.content, same.turn_id) != (
            message.role,
            messages.replace_unstorable(message.content),
            None,
        ):
            raise MessageIdUsedError(message.client_message_id or message.id)
        return same
    await require_idle(connection, session_id, lost_turn_id)
    await messages.append(connection, session_id, [message])
    return StoredMessage._make((await connection.execute(BY_ID, {"message": message.id})).one())


async def delete(
    connection: Connection, session_id: str, user_id: str, message_id: str, *, lost_turn_id: str = ""
) -> None:
    """Take a person's message and what was said until the next one out of the conversation. Any message of the two
    names them; a message that stands alone is deleted alone.

    Raises:
        NotFoundError: no such session of this user, or no such message in its conversation.
        TurnRunsError: a turn runs, or messages wait for one.
    """
    await lock_session(connection, session_id, user_id)
    place = await find(connection, session_id, message_id)
    if place.replaced:
        raise NotFoundError(f"Message {message_id} is not part of the conversation any more.")
    await require_idle(connection, session_id, lost_turn_id)
    first, end = place.first, place.last + 1
    if not place.alone:
        asked_at = await connection.scalar(ASKED_AT, {"session": session_id, "until": place.last})
        next_at = await connection.scalar(NEXT_AT, {"session": session_id, "behind": place.last})
        first = first if asked_at is None else asked_at
        end = NO_END if next_at is None else next_at
    await connection.execute(DELETE, {"session": session_id, "first": first, "end": end})
    await restore_summary(connection, session_id, first, DELETED)


async def begin_retry(connection: Connection, turn: NewTurn) -> bool:
    """Begin a turn that takes up `turn.retry_of`, and take that one's last words out of the conversation.

    What it did before, its tool calls with their results, stays. False: it is not the newest turn any more. The same
    call again changes nothing.
    """
    await lock_session(connection, turn.session_id)
    newest = await turns.newest(connection, turn.session_id)
    if newest is None:
        return False
    if newest.turn_id == turn.turn_id:
        return True
    # The caller is the session's only workflow, so a turn that reads as running is lost.
    if newest.turn_id != turn.retry_of or newest.status in (TurnStatus.COMPLETED, TurnStatus.CANCELLED):
        return False
    for row in await connection.execute(VISIBLE_OF_TURN, {"turn": newest.turn_id}):
        if row.role not in ("assistant", "reasoning") or row.tool_calls:
            break
        await connection.execute(REPLACE_ROW, {"message": row.id, "by_turn": turn.turn_id})
    await turns.start(connection, turn._replace(trigger_message_id=newest.trigger_message_id))
    return True


async def roll_back(connection: Connection, session_id: str, turn_id: str, by_turn_id: str) -> None:
    """Take the rows of a turn that has ended out of the conversation; the turn `by_turn_id` takes its place."""
    await lock_session(connection, session_id)
    first = await connection.scalar(FIRST_OF_TURN, {"session": session_id, "turn": turn_id})
    if first is not None:
        values = {"session": session_id, "turn": turn_id, "by_turn": by_turn_id}
        await connection.execute(TAKE_TURN_OUT, values)
        await restore_summary(connection, session_id, first, by_turn_id)
    await connection.execute(ROLLED_BACK, {"session": session_id})


def added_row(session_id: str, message_id: str, role: str, content: str) -> NewMessage:
    """The row of a message that starts no turn. Its id is that of a person's message, so one id names one message."""
    return NewMessage(row_id(session_id, "user", message_id), role, content, client_message_id=message_id)
