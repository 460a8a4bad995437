"""The list of a user's sessions: filtered, searched, with what runs in each and when something was last said."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, exists, or_, select, tuple_
from sqlalchemy.engine import Row

from longhaul.db.connection import Connection
from longhaul.db.models import UNFINISHED, MessageRow, SessionRow, TurnRow, columns_of
from longhaul.db.sessions import Session


class SessionPosition(NamedTuple):
    """A place in a list of sessions, newest first. The id orders sessions that were created at the same moment."""

    created_at: datetime
    id: str


@dataclass(frozen=True)
class SessionFilter:
    """Which sessions are listed.

    Attributes:
        parent: the sub-sessions of this one. Without it and without `agent`: those that are no sub-sessions.
        agent: only sub-sessions of this agent, wherever they are.
        running: whether a turn runs or is about to.
        labels: only sessions with all of these.
        title: only sessions whose title contains this text, in upper or lower case.
        text: only sessions whose title, or a message of a person or of the assistant, contains this text.
    """

    parent: str | None = None
    agent: str | None = None
    running: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    text: str | None = None


class ListedSession(NamedTuple):
    """A session in a list. `last_message_at` is None while nothing has been said."""

    session: Session
    running: bool
    last_message_at: datetime | None


RUNNING = or_(
    exists().where(TurnRow.session_id == SessionRow.id, TurnRow.status.in_(UNFINISHED)),
    exists().where(MessageRow.session_id == SessionRow.id, MessageRow.sequence.is_(None)),
)
#: The newest row is the one before the next sequence, so no other row is read for it.
LAST_MESSAGE_AT = (
    select(MessageRow.created_at)
    .where(MessageRow.session_id == SessionRow.id, MessageRow.sequence == SessionRow.next_sequence - 1)
    .scalar_subquery()
)
LISTED = select(*columns_of(SessionRow, Session), RUNNING, LAST_MESSAGE_AT)


async def list_of_user(
    connection: Connection,
    user_id: str,
    limit: int,
    after: SessionPosition | None = None,
    wanted: SessionFilter | None = None,
) -> list[ListedSession]:
    """A user's sessions behind a position, newest first."""
    statement = _wanted(LISTED.where(SessionRow.user_id == user_id), wanted or SessionFilter())
    if after is not None:
        position = tuple_(SessionRow.created_at, SessionRow.id)  # in this form a range of the index
        statement = statement.where(position < tuple_(after.created_at, after.id))
    newest_first = statement.order_by(SessionRow.created_at.desc(), SessionRow.id.desc())
    rows = await connection.execute(newest_first.limit(limit))
    return [_listed(row) for row in rows]


def _listed(row: Row[Any]) -> ListedSession:
    values: tuple[Any, ...] = tuple(row)
    return ListedSession(Session._make(values[:-2]), bool(values[-2]), values[-1])


def _wanted(statement: Select[Any], wanted: SessionFilter) -> Select[Any]:
    if wanted.parent is not None:
        statement = statement.where(SessionRow.parent_session_id == wanted.parent)
    elif wanted.agent is None:
        statement = statement.where(SessionRow.parent_session_id.is_(None))
    if wanted.agent is not None:
        statement = statement.where(SessionRow.agent == wanted.agent)
    if wanted.running is not None:
        statement = statement.where(RUNNING if wanted.running else ~RUNNING)
    for name, value in wanted.labels.items():
        statement = statement.where(SessionRow.labels[name].as_string() == value)
    if wanted.title:
        statement = statement.where(SessionRow.title.icontains(wanted.title, autoescape=True))
    return statement.where(_contains(wanted.text)) if wanted.text is not None else statement


def _contains(text: str) -> ColumnElement[bool]:
    said = exists().where(
        MessageRow.session_id == SessionRow.id,
        MessageRow.role.in_(("user", "assistant")),
        MessageRow.replaced_by.is_(None),
        MessageRow.content.icontains(text, autoescape=True),
    )
    return or_(SessionRow.title.icontains(text, autoescape=True), said)
