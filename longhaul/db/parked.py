"""Tool calls that wait for a person or a client. A row says what was asked, and what was answered.

Each change locks the session's row first. So an answer, a Stop, the end of the time and a message that comes instead
are put in order, and exactly one of them counts.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, bindparam, exists, insert, select, tuple_, update

from longhaul.contracts import ParkKind, TurnStatus
from longhaul.db import credentials, events, turns
from longhaul.db.connection import Connection
from longhaul.db.event_tables import EventType
from longhaul.db.messages import lock_session, replace_unstorable, row_id
from longhaul.db.models import (
    UNFINISHED,
    CredentialRow,
    CredentialStatus,
    ParkedCallRow,
    ParkedStatus,
    TurnRow,
    columns_of,
    utc_now,
)
from longhaul.errors import AnsweredError, NotFoundError, TurnEndedError

#: What somebody has said of a call, not the turn itself. The turn has to take it.
BY_SOMEBODY = (ParkedStatus.ALLOWED, ParkedStatus.DENIED, ParkedStatus.ANSWERED, ParkedStatus.SKIPPED)


class ParkedPosition(NamedTuple):
    """A place in the list of what waits, which begins with the oldest."""

    asked_at: datetime
    id: str


class ParkedRow(NamedTuple):
    """A call that waits, or has waited. See `ParkedCallRow`."""

    id: str
    session_id: str
    user_id: str
    turn_id: str
    round: int
    tool_call_id: str
    tool_name: str
    kind: ParkKind
    status: ParkedStatus
    arguments: str
    new_arguments: str | None
    answer: str | None
    is_error: bool
    for_session: bool
    asked_at: datetime
    expires_at: datetime | None
    answered_at: datetime | None
    settled_at: datetime | None
    definition: str = ""
    credential: str | None = None
    provider: str | None = None


class NewParked(NamedTuple):
    """A call that begins to wait. `credential`, `provider`: as in `ParkedCallRow`."""

    id: str
    session_id: str
    user_id: str
    turn_id: str
    round: int
    tool_call_id: str
    tool_name: str
    kind: ParkKind
    arguments: str
    asked_at: datetime
    expires_at: datetime | None
    definition: str = ""
    credential: str | None = None
    provider: str | None = None


@dataclass(frozen=True)
class Answer:
    """What somebody answers. `status` is one of `BY_SOMEBODY`; the rest is as in `ParkedCallRow`."""

    status: ParkedStatus
    text: str | None = None
    new_arguments: str | None = None
    for_session: bool = False
    is_error: bool = False

    def is_of(self, row: ParkedRow) -> bool:
        """Whether a call has been answered with this."""
        text = replace_unstorable(self.text) if self.text is not None else None
        return (row.status, row.answer, row.is_error) == (self.status, text, self.is_error)


PARKED = select(*columns_of(ParkedCallRow, ParkedRow))
BY_ID = PARKED.where(ParkedCallRow.id == bindparam("parked"))
OF_TURN = PARKED.where(ParkedCallRow.turn_id == bindparam("turn")).order_by(ParkedCallRow.asked_at, ParkedCallRow.id)
APPROVALS_OF_SESSION = PARKED.where(
    ParkedCallRow.session_id == bindparam("session"),
    ParkedCallRow.kind == ParkKind.APPROVAL,
    (ParkedCallRow.answered_at.is_(None)) | (ParkedCallRow.answered_at != ParkedCallRow.asked_at),
)
CLIENT_CALLS_WAITING = PARKED.where(
    ParkedCallRow.session_id == bindparam("session"),
    ParkedCallRow.kind == ParkKind.CLIENT_TOOL,
    ParkedCallRow.status == ParkedStatus.WAITING,
)
WAITS_IN_TURN = (
    select(ParkedCallRow.id)
    .where(ParkedCallRow.turn_id == bindparam("turn"), ParkedCallRow.status == ParkedStatus.WAITING)
    .limit(1)
)
ALLOWED_FOR_SESSION = (
    select(ParkedCallRow.id)
    .where(
        ParkedCallRow.session_id == bindparam("session"),
        ParkedCallRow.tool_name == bindparam("tool"),
        ParkedCallRow.definition == bindparam("definition"),
        ParkedCallRow.status == ParkedStatus.ALLOWED,
        ParkedCallRow.for_session,
    )
    .limit(1)
)
_TURN_RUNS = exists().where(TurnRow.turn_id == ParkedCallRow.turn_id, TurnRow.status.in_(UNFINISHED))
NOT_SETTLED = (
    PARKED.where(
        ParkedCallRow.settled_at.is_(None),
        ParkedCallRow.status.in_(BY_SOMEBODY),
        ParkedCallRow.answered_at < bindparam("before"),
        _TURN_RUNS,
    )
    .order_by(ParkedCallRow.answered_at)
    .limit(bindparam("most"))
)
WAITING_TO_CONNECT = PARKED.where(
    ParkedCallRow.user_id == bindparam("user"),
    ParkedCallRow.credential == bindparam("name"),
    ParkedCallRow.status == ParkedStatus.WAITING,
    ParkedCallRow.settled_at.is_(None),
)
CONNECTED_AND_WAITING = (
    PARKED.join(
        CredentialRow,
        and_(CredentialRow.user_id == ParkedCallRow.user_id, CredentialRow.name == ParkedCallRow.credential),
    )
    .where(
        CredentialRow.status == CredentialStatus.CONNECTED,
        ParkedCallRow.settled_at.is_(None),
        ParkedCallRow.status == ParkedStatus.WAITING,
        ParkedCallRow.asked_at < bindparam("before"),
        _TURN_RUNS,
    )
    .order_by(ParkedCallRow.asked_at)
    .limit(bindparam("most"))
)
INSERT = insert(ParkedCallRow)
SETTLE = (
    update(ParkedCallRow)
    .where(
        ParkedCallRow.id == bindparam("parked"),
        ParkedCallRow.status != ParkedStatus.WAITING,
        ParkedCallRow.settled_at.is_(None),
    )
    .values(settled_at=bindparam("now"))
)
GIVE_UP = (
    update(ParkedCallRow)
    .where(ParkedCallRow.id == bindparam("parked"), ParkedCallRow.status == ParkedStatus.WAITING)
    .values(status=bindparam("final"), answered_at=bindparam("now"))
)
CANCEL = (
    update(ParkedCallRow)
    .where(ParkedCallRow.turn_id == bindparam("turn"), ParkedCallRow.settled_at.is_(None))
    .values(settled_at=bindparam("now"))
)
CANCEL_WAITING = (
    update(ParkedCallRow)
    .where(ParkedCallRow.turn_id == bindparam("turn"), ParkedCallRow.status == ParkedStatus.WAITING)
    .values(status=ParkedStatus.CANCELLED, answered_at=bindparam("now"))
)
SHOW_STATUS = (
    update(TurnRow)
    .where(TurnRow.turn_id == bindparam("turn"), TurnRow.status.in_(UNFINISHED))
    .values(status=bindparam("shown"))
)


def id_of(turn_id: str, round_: int, tool_call_id: str, connects: int = 0) -> str:
    """The id under which a call waits; with `connects`, for a credential, asked for so often."""
    return row_id(turn_id, round_, "parked", tool_call_id, *([connects] if connects else []))


async def park(connection: Connection, new: NewParked) -> ParkedRow:
    """Let a call wait, unless it is known already. An approval that holds for the whole session allows it at once, and
    so does a credential that was given meanwhile.

    Raises:
        NotFoundError: the session was deleted.
        TurnEndedError: the turn's end is stored.
    """
    await lock_session(connection, new.session_id)
    if (known := await get(connection, new.id)) is not None:
        return known
    if await turns.has_ended(connection, new.turn_id):
        raise TurnEndedError(new.turn_id)
    allowed = await _needs_nobody(connection, new)
    values = {
        **new._asdict(),
        "arguments": replace_unstorable(new.arguments),
        "status": ParkedStatus.ALLOWED if allowed else ParkedStatus.WAITING,
        "answered_at": new.asked_at if allowed else None,
        "settled_at": new.asked_at if allowed else None,
    }
    await connection.execute(INSERT, values)
    await _show_status(connection, new.turn_id)
    if not allowed and new.kind is not ParkKind.CLIENT_TOOL:
        await _tell(connection, new)
    return await _own(connection, new.id)


async def _tell(connection: Connection, new: NewParked) -> None:
    """Store the event that a person is wanted."""
    details = {
        "approval_id": new.id,
        "kind": new.kind,
        "tool_name": new.tool_name,
        "expires_at": new.expires_at.isoformat() if new.expires_at is not None else None,
    }
    await events.record(
        connection,
        EventType.APPROVAL_WANTED,
        user_id=new.user_id,
        session_id=new.session_id,
        turn_id=new.turn_id,
        details=details,
        about=new.id,
    )


async def _needs_nobody(connection: Connection, new: NewParked) -> bool:
    if new.credential is not None:
        await credentials.lock(connection, new.user_id)
        return await credentials.is_connected(connection, new.user_id, new.credential)
    same_tool = {"session": new.session_id, "tool": new.tool_name, "definition": new.definition}
    return new.kind is ParkKind.APPROVAL and await connection.scalar(ALLOWED_FOR_SESSION, same_tool) is not None


async def settle(connection: Connection, parked_id: str, give_up: ParkedStatus | None) -> ParkedRow:
    """Take the answer of a call; without one it becomes `give_up`, or waits on if that is None.

    Raises:
        NotFoundError: the session was deleted.
    """
    row = await _own(connection, parked_id)
    await lock_session(connection, row.session_id)
    now = {"parked": parked_id, "now": utc_now()}
    if give_up is not None:
        await connection.execute(GIVE_UP, {**now, "final": give_up})
    await connection.execute(SETTLE, now)
    await _show_status(connection, row.turn_id)
    return await _own(connection, parked_id)


async def answer(connection: Connection, parked_id: str, user_id: str, given: Answer) -> ParkedRow:
    """Store somebody's answer, once. A client may send the same result again, because it may not have been told of
    the first one's success.

    Raises:
        NotFoundError: there is no such call, or it is another user's.
        AnsweredError: it waits for no answer any more.
    """
    row = await of_user(connection, parked_id, user_id)
    session = await lock_session(connection, row.session_id, user_id)
    row = await of_user(connection, parked_id, user_id)
    if row.kind is ParkKind.CLIENT_TOOL and given.is_of(row):
        return row
    if row.status is not ParkedStatus.WAITING:
        raise AnsweredError(parked_id, row.status)
    if session.stopped_turn_id == row.turn_id or await turns.has_ended(connection, row.turn_id):
        raise AnsweredError(parked_id, ParkedStatus.CANCELLED)
    await connection.execute(
        update(ParkedCallRow)
        .where(ParkedCallRow.id == parked_id)
        .values(
            status=given.status,
            answer=replace_unstorable(given.text) if given.text is not None else None,
            new_arguments=replace_unstorable(given.new_arguments) if given.new_arguments is not None else None,
            for_session=given.for_session,
            is_error=given.is_error,
            answered_at=utc_now(),
        )
    )
    return await _own(connection, parked_id)


async def cancel_of_turn(connection: Connection, turn_id: str) -> None:
    """The turn ends: nothing of it waits any more. The caller holds the session's lock."""
    values = {"turn": turn_id, "now": utc_now()}
    await connection.execute(CANCEL_WAITING, values)
    await connection.execute(CANCEL, values)


async def get(connection: Connection, parked_id: str) -> ParkedRow | None:
    """A call that waits, or has waited; None: there is none of this id."""
    rows = await _rows(connection, BY_ID, {"parked": parked_id})
    return rows[0] if rows else None


async def of_user(connection: Connection, parked_id: str, user_id: str) -> ParkedRow:
    """The same, if it is this user's.

    Raises:
        NotFoundError: it is not, or there is none.
    """
    row = await get(connection, parked_id)
    if row is None or row.user_id != user_id:
        raise NotFoundError(f"There is no approval {parked_id}.")
    return row


async def of_turn(connection: Connection, turn_id: str) -> list[ParkedRow]:
    """The calls of a turn that wait or have waited, in the order of asking."""
    return await _rows(connection, OF_TURN, {"turn": turn_id})


async def approvals_of_session(connection: Connection, session_id: str) -> list[ParkedRow]:
    """The approvals that a session's turns have asked for; not those that the session allows without asking."""
    return await _rows(connection, APPROVALS_OF_SESSION, {"session": session_id})


async def client_calls_waiting(connection: Connection, session_id: str) -> list[ParkedRow]:
    """The calls of a session that wait for their client."""
    return await _rows(connection, CLIENT_CALLS_WAITING, {"session": session_id})


async def waiting_of_user(
    connection: Connection,
    user_id: str,
    limit: int,
    *,
    session_id: str | None = None,
    after: ParkedPosition | None = None,
) -> list[ParkedRow]:
    """What a user has to answer, behind a position, the oldest first.

    Calls of turns whose workflow was lost are left out.
    """
    statement = PARKED.where(
        ParkedCallRow.user_id == user_id,
        ParkedCallRow.settled_at.is_(None),
        ParkedCallRow.status == ParkedStatus.WAITING,
        _TURN_RUNS,
    )
    if session_id is not None:
        statement = statement.where(ParkedCallRow.session_id == session_id)
    if after is not None:
        statement = statement.where(tuple_(ParkedCallRow.asked_at, ParkedCallRow.id) > tuple(after))
    return await _rows(connection, statement.order_by(ParkedCallRow.asked_at, ParkedCallRow.id).limit(limit), {})


async def not_settled(connection: Connection, before: datetime, limit: int) -> list[ParkedRow]:
    """Calls that were answered before a moment, and whose turns have not taken the answer."""
    return await _rows(connection, NOT_SETTLED, {"before": before, "most": limit})


async def waiting_to_connect(connection: Connection, user_id: str, credential: str) -> list[ParkedRow]:
    """The calls of a user that wait for this credential."""
    return await _rows(connection, WAITING_TO_CONNECT, {"user": user_id, "name": credential})


async def connected_and_waiting(connection: Connection, before: datetime, limit: int) -> list[ParkedRow]:
    """Calls that asked for a credential before a moment, and wait although it is there."""
    return await _rows(connection, CONNECTED_AND_WAITING, {"before": before, "most": limit})


async def _show_status(connection: Connection, turn_id: str) -> None:
    waits = await connection.scalar(WAITS_IN_TURN, {"turn": turn_id}) is not None
    shown = TurnStatus.WAITING_FOR_APPROVAL if waits else TurnStatus.RUNNING
    await connection.execute(SHOW_STATUS, {"turn": turn_id, "shown": shown})


async def _own(connection: Connection, parked_id: str) -> ParkedRow:
    row = await get(connection, parked_id)
    if row is None:
        raise NotFoundError(f"There is no approval {parked_id}.")
    return row


async def _rows(connection: Connection, statement: Select[Any], values: dict[str, Any]) -> list[ParkedRow]:
    rows = [ParkedRow._make(row) for row in await connection.execute(statement, values)]
    return [row._replace(kind=ParkKind(row.kind), status=ParkedStatus(row.status)) for row in rows]
