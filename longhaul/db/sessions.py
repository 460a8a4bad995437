"""Session rows."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Float, bindparam, delete, func, insert, select, update
from sqlalchemy.engine import Row

from longhaul.contracts import Scope
from longhaul.db.connection import Connection
from longhaul.db.messages import replace_unstorable
from longhaul.db.models import MessageRow, ParkedCallRow, SessionRow, ShareRow, TurnRow, columns_of
from longhaul.errors import NotFoundError

TITLE_MAX = 300


class Session(NamedTuple):
    """A session. `scope` is unread JSON: a broken one must fail only those who need it."""

    id: str
    user_id: str
    title: str | None
    parent_session_id: str | None
    root_session_id: str | None
    parent_turn_id: str | None
    agent: str | None
    system_context: str | None
    scope: dict[str, Any] | None
    max_cost_microdollars: int | None
    max_seconds: int | None
    token_scale: float | None
    compaction_due: bool | None
    summary_id: str | None
    summarised_until: int | None
    model: str | None
    created_at: datetime
    updated_at: datetime
    forked_from: str | None = None
    labels: dict[str, str] | None = None
    rolled_back_turn_id: str | None = None


class NewSession(NamedTuple):
    """A session to create."""

    id: str
    user_id: str
    title: str | None = None
    parent_session_id: str | None = None
    root_session_id: str | None = None
    parent_turn_id: str | None = None
    agent: str | None = None
    system_context: str | None = None
    scope: Scope | None = None
    max_cost_microdollars: int | None = None
    max_seconds: int | None = None
    forked_from: str | None = None
    model: str | None = None
    labels: dict[str, str] | None = None


SESSIONS = select(*columns_of(SessionRow, Session))
BY_ID = SESSIONS.where(SessionRow.id == bindparam("session"))
NOTE_CALL = (
    update(SessionRow)
    .where(SessionRow.id == bindparam("session"))
    .values(
        token_scale=func.coalesce(bindparam("scale", type_=Float), SessionRow.token_scale),
        compaction_due=bindparam("due"),
    )
)
BY_ID_AND_USER = BY_ID.where(SessionRow.user_id == bindparam("user"))


async def create(connection: Connection, session: NewSession) -> bool:
    """Store a new session; False when it is stored already."""
    if await connection.scalar(select(SessionRow.id).where(SessionRow.id == session.id)):
        return False
    values = {
        **session._asdict(),
        "title": replace_unstorable(session.title) if session.title else None,
        "system_context": replace_unstorable(session.system_context) if session.system_context else None,
        "scope": session.scope.model_dump(mode="json") if session.scope is not None else None,
        "labels": storable(session.labels or {}),
    }
    await connection.execute(insert(SessionRow), values)
    return True


async def get(connection: Connection, session_id: str, user_id: str | None = None) -> Session:
    """A session; with `user_id`, only if it is this user's.

    Raises:
        NotFoundError: there is no such session, or it is another user's.
    """
    if user_id is None:
        row = (await connection.execute(BY_ID, {"session": session_id})).first()
    else:
        row = (await connection.execute(BY_ID_AND_USER, {"session": session_id, "user": user_id})).first()
    if row is None:
        raise NotFoundError(f"There is no session {session_id}.")
    return Session._make(row)


async def of_turn(connection: Connection, turn_id: str, user_id: str) -> Session:
    """A user's session of which this is a turn, also one that has not begun yet.

    Raises:
        NotFoundError: there is no such turn, or its session is another user's.
    """
    in_turn = select(MessageRow.session_id).where(MessageRow.turn_id == turn_id).limit(1).scalar_subquery()
    statement = SESSIONS.where(SessionRow.id == in_turn, SessionRow.user_id == user_id)
    row = (await connection.execute(statement)).first()
    if row is None:
        raise NotFoundError(f"There is no turn {turn_id}.")
    return Session._make(row)


async def descendants(connection: Connection, session_id: str, root_session_id: str | None) -> list[Session]:
    """All sub-sessions below a session, parents before children. `root_session_id`: None if the session is the root."""
    root = root_session_id or session_id
    statement = SESSIONS.where(SessionRow.root_session_id == root, SessionRow.id != root)
    below: dict[str, Session] = {}
    for session in _sessions(await connection.execute(statement.order_by(SessionRow.created_at, SessionRow.id))):
        if session.parent_session_id == session_id or session.parent_session_id in below:
            below[session.id] = session
    return list(below.values())


def _sessions(rows: Iterable[Row[Any]]) -> list[Session]:
    return [Session._make(row) for row in rows]


async def titles(connection: Connection, session_ids: Sequence[str]) -> dict[str, str | None]:
    """The titles of those of these sessions that exist."""
    rows = await connection.execute(select(SessionRow.id, SessionRow.title).where(SessionRow.id.in_(session_ids)))
    return {row.id: row.title for row in rows}


async def rename(connection: Connection, session_id: str, user_id: str, title: str) -> None:
    """Set a title for good.

    Raises:
        NotFoundError: there is no such session, or it is another user's.
    """
    await get(connection, session_id, user_id)
    await connection.execute(
        update(SessionRow).where(SessionRow.id == session_id).values(title=replace_unstorable(title)[:TITLE_MAX])
    )


async def choose_model(connection: Connection, session_id: str, user_id: str, model: str | None) -> None:
    """Let a model answer a session's messages, or, with None, that of their tier.

    Raises:
        NotFoundError: there is no such session, or it is another user's.
    """
    await get(connection, session_id, user_id)
    await connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(model=model))


async def relabel(connection: Connection, session_id: str, user_id: str, labels: Mapping[str, str]) -> None:
    """Replace all labels; raises what `rename` raises."""
    await get(connection, session_id, user_id)
    await connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(labels=storable(labels)))


def storable(labels: Mapping[str, str]) -> dict[str, str] | None:
    """Labels as a row holds them; None if there are none."""
    return {name: replace_unstorable(value) for name, value in labels.items()} or None


async def name_if_untitled(connection: Connection, session_id: str, title: str) -> bool:
    """Give an untitled session a title; False if it has one, from a person or an earlier try."""
    named = await connection.execute(
        update(SessionRow)
        .where(SessionRow.id == session_id, SessionRow.title.is_(None))
        .values(title=replace_unstorable(title)[:TITLE_MAX])
    )
    return bool(named.rowcount)


async def replace_title(connection: Connection, session_id: str, old: str, new: str) -> bool:
    """Replace a title that is still `old`; False otherwise."""
    replaced = await connection.execute(
        update(SessionRow)
        .where(SessionRow.id == session_id, SessionRow.title == old)
        .values(title=replace_unstorable(new)[:TITLE_MAX])
    )
    return bool(replaced.rowcount)


async def note_call(
    connection: Connection, session_id: str, *, token_scale: float | None, compaction_due: bool
) -> None:
    """Note what the newest model call says about the next.

    Args:
        token_scale: how many tokens the endpoint counted for each one that was estimated; None: as before.
        compaction_due: whether the conversation is to be summarised first.
    """
    await connection.execute(NOTE_CALL, {"session": session_id, "scale": token_scale, "due": compaction_due})


async def note_summary(connection: Connection, session_id: str, summary_id: str | None, until: int | None) -> None:
    """Note the row of the summary that counts now, and the sequence up to which it stands for the rows; None: none."""
    values = {"compaction_due": False, "summary_id": summary_id, "summarised_until": until}
    await connection.execute(update(SessionRow).where(SessionRow.id == session_id).values(values))


async def delete_all(connection: Connection, session_ids: Sequence[str]) -> None:
    """Delete sessions with all their rows; the ledger stays, because it is money.

    Every transaction that changes rows of a session locks the session first. The deletion does the same; otherwise
    the two could wait for each other.
    """
    await connection.execute(
        select(SessionRow.id).where(SessionRow.id.in_(session_ids)).order_by(SessionRow.id).with_for_update()
    )
    for table in (MessageRow, TurnRow, ParkedCallRow, ShareRow):
        await connection.execute(delete(table).where(table.session_id.in_(session_ids)))
    await connection.execute(delete(SessionRow).where(SessionRow.id.in_(session_ids)))
