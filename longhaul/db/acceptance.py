"""Messages that wait: accept what people send, place it in a turn.

Which turn a message belongs to is decided once, when it is accepted: the session's lock orders that against the end of
a turn, so a message either joins a turn that will take it or begins the next one. It waits, which means that its row
has no sequence, until that turn places it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import bindparam, func, select, update

from longhaul.db import busy
from longhaul.db.busy import Decision, OnBusy
from longhaul.db.connection import Connection
from longhaul.db.messages import ADVANCE, INSERT, lock_session, replace_unstorable, row_id
from longhaul.db.models import UNFINISHED, MessageRow, SessionRow, TurnRow, columns_of
from longhaul.errors import InboxFullError, MessageIdUsedError


class WaitingMessage(NamedTuple):
    """A message that was accepted and that no turn has taken yet."""

    client_message_id: str
    content: str
    context: dict[str, Any] | None
    choice: dict[str, Any] | None
    created_at: datetime
    queued: bool | None = None
    replaced_by: str | None = None


@dataclass(frozen=True)
class Accepted:
    """The result of accepting a message.

    Attributes:
        row_id: the message's row.
        turn_id: the turn that this message belongs to.
        run_turn_id: the turn id for a new workflow run, should the signal find none. It differs from `turn_id` when the
            message joins a turn that has begun: if that turn's workflow is gone, no other run may continue under its
            id, because row ids derive from turn ids.
        starts_turn: the message is the first of its turn.
        taken: the turn has taken the message already, so no signal is needed.
        waiting: how many messages wait for this turn, this one included.
        queued: its turn begins when those before it have ended.
        stops: the turn that has to be stopped for this message; empty: none.
    """

    row_id: str
    turn_id: str
    run_turn_id: str
    starts_turn: bool
    taken: bool
    waiting: int
    queued: bool = False
    stops: str = ""


class Placed(NamedTuple):
    """Messages that belong to a turn and round now. `client_tools`: those that the newest message which declares some
    declares (see `MessageRow`)."""

    message_ids: list[str]
    client_tools: str | None = None


WAITING_OR_PLACED = (
    select(
        MessageRow.id,
        MessageRow.client_message_id,
        MessageRow.sequence,
        MessageRow.turn_id,
        MessageRow.queued,
        MessageRow.replaced_by,
        MessageRow.client_tools,
        TurnRow.status,
    )
    .outerjoin(TurnRow, TurnRow.turn_id == MessageRow.turn_id)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.sequence.is_(None)
        | (
            (MessageRow.turn_id == bindparam("turn"))
            & (MessageRow.round == bindparam("in_round"))
            & (MessageRow.role == "user")
        ),
    )
    .order_by(MessageRow.sequence.nulls_last(), MessageRow.created_at, MessageRow.id)
)
PLACE = (
    update(MessageRow)
    .where(MessageRow.id == bindparam("message"))
    .values(sequence=bindparam("at"), turn_id=bindparam("turn"), round=bindparam("in_round"), kind=bindparam("as_kind"))
)
WAITING_OR_SAME = (
    select(
        MessageRow.id,
        MessageRow.client_message_id,
        MessageRow.turn_id,
        MessageRow.sequence,
        MessageRow.queued,
        TurnRow.status,
        TurnRow.trigger_message_id,
    )
    .outerjoin(TurnRow, TurnRow.turn_id == MessageRow.turn_id)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.sequence.is_(None) | (MessageRow.id == bindparam("message")),
    )
    .order_by(MessageRow.created_at, MessageRow.id)
)
WAITING_FOR_TURN = (
    select(MessageRow.id)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.sequence.is_(None),
        (MessageRow.turn_id == bindparam("turn")) | MessageRow.turn_id.is_(None),
    )
    .limit(1)
)
CAN_END = select(SessionRow.id).where(
    SessionRow.id == bindparam("session"),
    func.coalesce(SessionRow.stopped_turn_id, "") != bindparam("turn"),
    ~WAITING_FOR_TURN.exists(),
)
OLDEST_WAITING = (
    select(MessageRow.created_at)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.sequence.is_(None),
        MessageRow.turn_id == bindparam("turn"),
    )
    .order_by(MessageRow.created_at)
    .limit(1)
)
NEXT_WAITING_TURN = (
    select(MessageRow.turn_id)
    .where(MessageRow.session_id == bindparam("session"), MessageRow.sequence.is_(None))
    .order_by(func.coalesce(MessageRow.queued, False), MessageRow.created_at, MessageRow.id)
    .limit(1)
)
MOVE_TO_TURN = (
    update(MessageRow)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.sequence.is_(None),
        (MessageRow.turn_id == bindparam("turn")) | MessageRow.turn_id.is_(None),
    )
    .values(turn_id=bindparam("next_turn"))
)
ASSIGN_TURN = update(MessageRow).where(MessageRow.id == bindparam("message")).values(turn_id=bindparam("turn"))
WAITING = (
    select(*columns_of(MessageRow, WaitingMessage))
    .where(MessageRow.session_id == bindparam("session"), MessageRow.sequence.is_(None))
    .order_by(MessageRow.created_at, MessageRow.id)
)
# In random order: sessions whose turns run must not keep the others from being among those that are returned.
WAITING_LONG = (
    select(MessageRow.session_id)
    .where(MessageRow.sequence.is_(None), MessageRow.created_at < bindparam("before"))
    .group_by(MessageRow.session_id)
    .order_by(func.random())
    .limit(bindparam("most"))
)
CONTENT = select(MessageRow.content).where(MessageRow.id == bindparam("message"))


async def accept(
    connection: Connection,
    *,
    session_id: str,
    user_id: str,
    message_id: str,
    content: str,
    context: dict[str, Any] | None,
    choice: dict[str, Any] | None = None,
    limit: int,
    client_tools: str | None = None,
    may_begin: Callable[[], Awaitable[None]] | None = None,
    on_busy: OnBusy = OnBusy.JOIN,
) -> Accepted:
    """Keep a message until a turn takes it, and decide which turn that is; the same id again changes nothing.

    Raises:
        NotFoundError: no such session of this user.
        InboxFullError: `limit` messages (0: no limit) wait for that turn, or for turns of their own, already.
        MessageIdUsedError: the session has a message of this id with other content.
        SessionBusyError: a turn runs, and `on_busy` says to reject the message then.
        LonghaulError: the message would begin a turn, and `may_begin` refuses that.
    """
    content = replace_unstorable(content)
    session = await lock_session(connection, session_id, user_id)
    own_id = row_id(session_id, "user", message_id)
    rows = list(await connection.execute(WAITING_OR_SAME, {"session": session_id, "message": own_id}))
    same = next((row for row in rows if row.id == own_id), None)
    if same is not None and await connection.scalar(CONTENT, {"message": own_id}) != content:
        raise MessageIdUsedError(message_id)
    if same is not None and same.sequence is not None:
        if same.turn_id is None:  # it was added without a turn
            raise MessageIdUsedError(message_id)
        return Accepted(
            own_id,
            turn_id=same.turn_id,
            run_turn_id=str(uuid4()),  # a run that finds nothing to do; the turn itself may have ended
            starts_turn=same.trigger_message_id == message_id,
            taken=True,
            waiting=sum(1 for row in rows if row.sequence is None and row.turn_id == same.turn_id),
        )
    if same is not None and same.turn_id and (same.status is None or same.status in UNFINISHED):
        decision = Decision(same.turn_id, has_begun=same.status is not None, queued=bool(same.queued))
        if on_busy in (OnBusy.INTERRUPT, OnBusy.ROLLBACK):
            decision = decision._replace(stops=await _still_stopping(connection, session_id, session.stopped_turn_id))
    else:
        decision = await busy.decide(connection, session_id, OnBusy.JOIN if same is not None else on_busy)
    turn_id = decision.turn_id
    waiting_ids = [row.client_message_id for row in rows if row.turn_id == turn_id]
    accepted = Accepted(
        own_id,
        turn_id=turn_id,
        run_turn_id=turn_id if not decision.has_begun else str(uuid4()),
        starts_turn=not decision.has_begun and (waiting_ids or [message_id])[0] == message_id,
        taken=False,
        waiting=len({*waiting_ids, message_id}),
        queued=decision.queued,
        stops=decision.stops,
    )
    if same is not None:
        if same.turn_id != turn_id:
            await connection.execute(ASSIGN_TURN, {"message": own_id, "turn": turn_id})
        return accepted
    before = sum(1 for row in rows if row.queued) if decision.queued else len(waiting_ids)
    if limit and before >= limit:
        raise InboxFullError(before, limit)
    if decision.is_new and may_begin is not None:
        await may_begin()
    await connection.execute(
        INSERT,
        {
            "id": own_id,
            "session_id": session_id,
            "client_message_id": message_id,
            "role": "user",
            "content": content,
            "context": context,
            "choice": choice,
            "client_tools": client_tools,
            "turn_id": turn_id,
            "queued": decision.queued or None,
        },
    )
    return accepted


async def _still_stopping(connection: Connection, session_id: str, stopped_turn_id: str | None) -> str:
    """The turn that was marked as stopped, if it has not ended; empty: it has."""
    unfinished = await busy.unfinished_turn(connection, session_id)
    return unfinished if unfinished == stopped_turn_id else ""


async def place_waiting(
    connection: Connection, session_id: str, *, turn_id: str, round_: int, kind: str, of_all_turns: bool = False
) -> Placed:
    """Give the messages that wait for a turn their place in the conversation, in the order of their acceptance.

    `of_all_turns` also takes messages that wait for other turns of the session, whose workflows never started or are
    lost; not those that were queued. A turn that was stopped before it began takes only its own: later messages belong
    to the next turn. So does a turn of a queued message, and nothing while another turn has to begin before it.

    Returns:
        The messages that belong to this turn and round now, those that were taken back at the end; a repeated call
        returns the same, and those that were accepted since.
    """
    session = await lock_session(connection, session_id)
    values = {"session": session_id, "turn": turn_id, "in_round": round_}
    rows = list(await connection.execute(WAITING_OR_PLACED, values))
    of_others = of_all_turns and session.stopped_turn_id != turn_id
    if of_others and any(row.queued and row.sequence is None and row.turn_id == turn_id for row in rows):
        if busy.first_turn(row for row in rows if row.sequence is None and row.status is None) != turn_id:
            return Placed([])
        rows = [row for row in rows if row.turn_id in (turn_id, None) or row.status is not None]
    elif of_others:
        rows = [row for row in rows if row.turn_id == turn_id or not row.queued]
    else:
        rows = [row for row in rows if row.turn_id in (turn_id, None)]
    waiting = [row.id for row in rows if row.sequence is None]
    if waiting:
        await _place(connection, waiting, session.next_sequence, turn_id, round_, kind)
        await connection.execute(ADVANCE, {"session": session_id, "following": session.next_sequence + len(waiting)})
    rows.sort(key=lambda row: row.replaced_by is not None)
    declared = [row.client_tools for row in rows if row.client_tools is not None and row.replaced_by is None]
    return Placed([row.client_message_id for row in rows], declared[-1] if declared else None)


async def _place(connection: Connection, ids: Sequence[str], first: int, turn_id: str, round_: int, kind: str) -> None:
    places = [
        {"message": id_, "at": sequence, "turn": turn_id, "in_round": round_, "as_kind": kind}
        for sequence, id_ in enumerate(ids, start=first)
    ]
    await connection.execute(PLACE, places)


async def any_waits_for(connection: Connection, session_id: str, turn_id: str) -> bool:
    """Whether a message waits for this turn; true until the caller commits, because it holds the session's lock."""
    return await connection.scalar(WAITING_FOR_TURN, {"session": session_id, "turn": turn_id}) is not None


async def can_end(connection: Connection, session_id: str, turn_id: str) -> bool:
    """Whether a final answer ends this turn: no message waits for it, and no person has stopped it.

    As `any_waits_for`, the answer holds until the caller commits.
    """
    return await connection.scalar(CAN_END, {"session": session_id, "turn": turn_id}) is not None


async def waiting_since(connection: Connection, session_id: str, turn_id: str) -> datetime | None:
    """When the oldest message was accepted that waits for this turn; None: none waits."""
    values = {"session": session_id, "turn": turn_id}
    accepted_at: datetime | None = await connection.scalar(OLDEST_WAITING, values)
    return accepted_at


async def next_waiting_turn(connection: Connection, session_id: str) -> str:
    """The turn that begins next, for which messages of a session wait; empty if none waits."""
    return await connection.scalar(NEXT_WAITING_TURN, {"session": session_id}) or ""


async def move_waiting(connection: Connection, session_id: str, turn_id: str, next_turn_id: str) -> None:
    """Let the messages that wait for a turn wait for another one instead."""
    await connection.execute(MOVE_TO_TURN, {"session": session_id, "turn": turn_id, "next_turn": next_turn_id})


async def list_waiting(connection: Connection, session_id: str) -> list[WaitingMessage]:
    """Messages that no turn has taken yet, oldest first."""
    return [WaitingMessage._make(row) for row in await connection.execute(WAITING, {"session": session_id})]


async def sessions_waiting(connection: Connection, before: datetime, limit: int) -> list[str]:
    """Sessions with messages that have waited since `before`, in random order; their turns may run."""
    return list(await connection.scalars(WAITING_LONG, {"before": before, "most": limit}))
