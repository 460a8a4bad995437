"""Events of users: stored in the transaction in which they happen, so that none is lost.

They are numbered in the order of their commits: the row of the user's position is locked from the number on to the end
of the transaction. So whoever has read up to a position has seen all that come before it.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import JSON, BigInteger, String, bindparam, case, delete, exists, insert, select, text

from longhaul.db.connection import Connection
from longhaul.db.event_tables import EventPositionRow, EventRow, EventType, WebhookAttemptRow
from longhaul.db.messages import row_id
from longhaul.db.models import SessionRow, UtcDateTime, columns_of, utc_now

FORGET_AT_ONCE = 1_000


class Event(NamedTuple):
    """Something that happened. See `EventRow`."""

    id: str
    user_id: str
    position: int
    type: EventType
    session_id: str
    parent_session_id: str | None
    turn_id: str
    details: dict[str, Any]
    created_at: datetime

    @property
    def data(self) -> dict[str, Any]:
        """What its readers are told: ids and statuses. What was said is read over the API."""
        if self.type is EventType.SUB_SESSION_ENDED:
            where = {"sub_session_id": self.session_id, "parent_session_id": self.parent_session_id}
        else:
            where = {"session_id": self.session_id, "parent_session_id": self.parent_session_id}
        return {**where, "turn_id": self.turn_id, **self.details}


EVENTS = select(*columns_of(EventRow, Event))
# Both databases understand this; SQLAlchemy's `on_conflict_do_update` is another one for each.
NEXT_POSITION = text(
    "INSERT INTO event_positions (user_id, position, watched) VALUES (:user, 1, FALSE) "
    "ON CONFLICT (user_id) DO UPDATE SET position = event_positions.position + 1 RETURNING position, watched"
)
WATCH = text(
    "INSERT INTO event_positions (user_id, position, watched) VALUES (:user, 0, :watched) "
    "ON CONFLICT (user_id) DO UPDATE SET watched = excluded.watched RETURNING position"
)
POSITION = select(EventPositionRow.position).where(EventPositionRow.user_id == bindparam("user"))
_OWN_TYPE = bindparam("type", type_=String)
# A session that was deleted meanwhile has no events any more.
INSERT = insert(EventRow).from_select(
    ["id", "user_id", "position", "type", "session_id", "parent_session_id", "turn_id", "details", "created_at"],
    select(
        bindparam("id", type_=String),
        bindparam("user", type_=String),
        bindparam("position", type_=BigInteger),
        case(
            (
                (_OWN_TYPE == EventType.TURN_ENDED) & SessionRow.parent_session_id.is_not(None),
                EventType.SUB_SESSION_ENDED.value,
            ),
            else_=_OWN_TYPE,
        ),
        SessionRow.id,
        SessionRow.parent_session_id,
        bindparam("turn", type_=String),
        bindparam("details", type_=JSON),
        bindparam("now", type_=UtcDateTime),
    ).where(
        SessionRow.id == bindparam("session"),
        ~exists().where(EventRow.id == bindparam("id", type_=String)),  # A repeated transaction stores it once.
    ),
)


async def record(
    connection: Connection,
    type_: EventType,
    *,
    user_id: str,
    session_id: str,
    turn_id: str,
    details: Mapping[str, Any],
    about: str = "",
) -> None:
    """Store that something happened to a turn; the end of a sub-session's turn is an event of its own type.

    The caller holds the lock of the session, and locks nothing else of the user afterwards. `about`: what tells the
    event from others of its type and turn.
    """
    row = (await connection.execute(NEXT_POSITION, {"user": user_id})).one()
    values = {
        "id": row_id(turn_id, type_, *([about] if about else [])),
        "user": user_id,
        "position": row.position,
        "type": type_,
        "session": session_id,
        "turn": turn_id,
        "details": dict(details),
        "now": utc_now(),
    }
    await connection.execute(INSERT, values)
    if row.watched:
        connection.watched_users.add(user_id)


async def watch(connection: Connection, user_id: str, *, watched: bool) -> int:
    """Note whether somebody waits for a user's events; the position of the newest one."""
    position: int = await connection.scalar(WATCH, {"user": user_id, "watched": watched})
    return position


async def newest_position(connection: Connection, user_id: str) -> int:
    """The position of a user's newest event; 0: there is none. All before it can be read by now."""
    return await connection.scalar(POSITION, {"user": user_id}) or 0


async def find(connection: Connection, user_id: str, event_id: str) -> Event | None:
    """An event of a user, or None."""
    rows = await connection.execute(EVENTS.where(EventRow.id == event_id, EventRow.user_id == user_id))
    return _event(row) if (row := rows.first()) is not None else None


async def list_of_user(
    connection: Connection,
    user_id: str,
    limit: int,
    *,
    behind: int = 0,
    since: datetime | None = None,
    types: Collection[EventType] = (),
) -> list[Event]:
    """A user's events behind a position, the oldest first."""
    statement = EVENTS.where(EventRow.user_id == user_id, EventRow.position > behind)
    if since is not None:
        statement = statement.where(EventRow.created_at > since)
    if types:
        statement = statement.where(EventRow.type.in_(types))
    return [_event(row) for row in await connection.execute(statement.order_by(EventRow.position).limit(limit))]


async def forget(connection: Connection, before: datetime) -> bool:
    """Forget some of the events, and of the attempts to deliver them, older than a moment; whether any is left."""
    most = 0
    for table in (EventRow, WebhookAttemptRow):
        old = select(table.id).where(table.created_at < before).limit(FORGET_AT_ONCE)
        most = max(most, (await connection.execute(delete(table).where(table.id.in_(old)))).rowcount)
    return most >= FORGET_AT_ONCE


def _event(row: Any) -> Event:
    event = Event._make(row)
    return event._replace(type=EventType(event.type))
