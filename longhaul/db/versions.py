"""Versions of a person's message: what was edited, or is to be answered again, stays beside what replaced it.

A new version takes the message and everything behind it out of the conversation, and is a message of its own that
begins a turn. Rows that were taken out keep their sequence and name the turn that replaced them.
"""

from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import bindparam, or_, select, update

from longhaul.db import sessions
from longhaul.db.acceptance import CONTENT, WAITING, Accepted
from longhaul.db.connection import Connection
from longhaul.db.messages import INSERT, StoredMessage, lock_session, replace_unstorable, row_id
from longhaul.db.models import UNFINISHED, MessageRow, TurnRow, columns_of
from longhaul.errors import MessageIdUsedError, TurnRunsError

OF_MESSAGE = or_(MessageRow.client_message_id == bindparam("message"), MessageRow.version_of == bindparam("message"))
VERSIONS = (
    select(*columns_of(MessageRow, StoredMessage))
    .where(MessageRow.session_id == bindparam("session"), OF_MESSAGE)
    .order_by(MessageRow.created_at, MessageRow.id)
)
UNFINISHED_TURN = (
    select(TurnRow.turn_id)
    .where(TurnRow.session_id == bindparam("session"), TurnRow.status.in_(UNFINISHED))
    .order_by(TurnRow.started_at.desc())
    .limit(1)
)
SUMMARIES = (
    select(MessageRow.id, MessageRow.context)
    .where(
        MessageRow.session_id == bindparam("session"), MessageRow.kind == "summary", MessageRow.replaced_by.is_(None)
    )
    .order_by(MessageRow.sequence.desc())
)
REPLACE_SUMMARY = (
    update(MessageRow).where(MessageRow.id == bindparam("message")).values(replaced_by=bindparam("by_turn"))
)
TAKE_OUT = (
    update(MessageRow)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.sequence >= bindparam("first"),
        MessageRow.replaced_by.is_(None),
    )
    .values(replaced_by=bindparam("turn"))
)


class NewVersion(NamedTuple):
    """A new version of the message `of`; `id` is its own, from its sender."""

    id: str
    of: str
    content: str
    context: dict[str, Any] | None
    choice: dict[str, Any] | None = None
    client_tools: str | None = None


async def of_message(connection: Connection, session_id: str, message_id: str) -> list[StoredMessage]:
    """All versions of a message, oldest first, those included that wait or were replaced; none: no such message.

    The sequence of a version that waits is None.
    """
    rows = await connection.execute(VERSIONS, {"session": session_id, "message": message_id})
    return [StoredMessage._make(row) for row in rows]


def current(versions: list[StoredMessage]) -> StoredMessage | None:
    """The version that is part of the conversation, or waits to be; None: another message's version replaced it."""
    return next((version for version in reversed(versions) if version.replaced_by is None), None)


async def replace(
    connection: Connection, session_id: str, user_id: str, version: NewVersion, *, lost_turn_id: str = ""
) -> Accepted:
    """Take a message and what follows out of the conversation, and accept its new version as the first of a turn.

    The same version again changes nothing. `lost_turn_id`: an unfinished turn of which Temporal knows nothing.

    Raises:
        NotFoundError: no such session of this user.
        MessageIdUsedError: the version's id belongs to a message with other content.
        TurnRunsError: a turn runs, or messages wait for one; nothing was changed.
    """
    await lock_session(connection, session_id, user_id)
    content = replace_unstorable(version.content)
    own_id = row_id(session_id, "user", version.id)
    stored = await of_message(connection, session_id, version.of)
    same = next((row for row in stored if row.id == own_id), None)
    if same is not None:
        if await connection.scalar(CONTENT, {"message": own_id}) != content:
            raise MessageIdUsedError(version.id)
        turn_id = same.turn_id or str(uuid4())
        taken = same.sequence is not None
        return Accepted(
            own_id,
            turn_id=turn_id,
            run_turn_id=turn_id if not taken else str(uuid4()),
            starts_turn=True,
            taken=taken,
            waiting=int(not taken),
        )
    await require_idle(connection, session_id, lost_turn_id)
    turn_id = str(uuid4())
    replaced = current(stored)
    if replaced is not None:
        await connection.execute(TAKE_OUT, {"session": session_id, "first": replaced.sequence, "turn": turn_id})
        await restore_summary(connection, session_id, replaced.sequence, turn_id)
    await connection.execute(
        INSERT,
        {
            "id": own_id,
            "session_id": session_id,
            "client_message_id": version.id,
            "version_of": version.of,
            "role": "user",
            "content": content,
            "context": version.context,
            "choice": version.choice,
            "client_tools": _declared(version, replaced),
            "turn_id": turn_id,
        },
    )
    return Accepted(own_id, turn_id=turn_id, run_turn_id=turn_id, starts_turn=True, taken=False, waiting=1)


def _declared(version: NewVersion, replaced: StoredMessage | None) -> str | None:
    """The tools of a new version: those of the message that it replaces, unless it declares others."""
    if version.client_tools is None and replaced is not None:
        return replaced.client_tools
    return version.client_tools


async def require_idle(connection: Connection, session_id: str, lost_turn_id: str = "") -> None:
    """Check that nothing runs in a session whose lock the caller holds. `lost_turn_id` counts as ended.

    Raises:
        TurnRunsError: a turn runs, or messages wait for one.
    """
    begun = await connection.scalar(UNFINISHED_TURN, {"session": session_id})
    if begun is not None and begun != lost_turn_id:
        raise TurnRunsError(begun)
    if (await connection.execute(WAITING, {"session": session_id})).first() is not None:
        raise TurnRunsError("")


async def restore_summary(connection: Connection, session_id: str, first: int, replaced_by: str) -> None:
    """Replace summaries that tell of rows from `first` on, some of which were taken out, by an earlier summary.

    Without one, the next model call is given what fits, and says whether the conversation is to be summarised again.
    """
    session = await sessions.get(connection, session_id)
    if session.summarised_until is None or session.summarised_until < first:
        return
    earlier = None
    for summary in await connection.execute(SUMMARIES, {"session": session_id}):
        if summary.context["until"] < first:
            earlier = summary
            break
        await connection.execute(REPLACE_SUMMARY, {"message": summary.id, "by_turn": replaced_by})
    if earlier is None:
        await sessions.note_summary(connection, session_id, None, None)
    else:
        await sessions.note_summary(connection, session_id, earlier.id, earlier.context["until"])
