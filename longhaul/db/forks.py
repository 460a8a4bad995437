"""Forks: a new session that begins with the conversation of another one, up to a message."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.engine import Row

from longhaul.contracts import Progress, Scope, TurnStatus
from longhaul.db import conversation, messages, sessions
from longhaul.db.connection import Connection
from longhaul.db.messages import row_id, tool_row
from longhaul.db.models import DELETED, MessageRow, SessionRow, TurnRow
from longhaul.db.sessions import NewSession, Session

ROWS = (
    select(*MessageRow.__table__.columns)
    .where(MessageRow.session_id == bindparam("session"), MessageRow.sequence <= bindparam("until"))
    .order_by(MessageRow.sequence)
)
BEHIND = (
    select(MessageRow.id)
    .where(MessageRow.turn_id == bindparam("turn"), MessageRow.sequence > bindparam("until"))
    .limit(1)
)
TURNS = select(*TurnRow.__table__.columns).where(TurnRow.session_id == bindparam("session"))
NUMBER = (
    update(SessionRow)
    .where(SessionRow.id == bindparam("session"))
    .values(next_sequence=bindparam("following"), token_scale=bindparam("scale"))
)


async def fork(
    connection: Connection, source: Session, new_id: str, until: int, *, title: str | None, unanswered: str
) -> bool:
    """Make a session that begins with the rows of `source` up to the sequence `until`; False: it exists already.

    It has the limits, agent and context of `source`, is a session of its own, and its rows keep their sequences. A row
    that was replaced by something behind `until` is part of the new conversation: so it goes on from an older version.
    Turns are copied with the rows; the ledger is not, because the fork has spent nothing.

    Args:
        unanswered: the result of a tool call that has none in these rows.
    """
    scope = Scope.model_validate(source.scope or {})
    alone = {"root_session_id": new_id, "depth": 0, "ancestors": (), "budgets": (), "detached": False}
    session = NewSession(
        id=new_id,
        user_id=source.user_id,
        title=title or source.title,
        root_session_id=None,
        agent=source.agent,
        system_context=source.system_context,
        scope=scope.model_copy(update=alone),
        max_cost_microdollars=source.max_cost_microdollars,
        max_seconds=source.max_seconds,
        forked_from=source.id,
        labels=source.labels,
        model=source.model,
    )
    if not await sessions.create(connection, session):
        return False
    rows = list(await connection.execute(ROWS, {"session": source.id, "until": until}))
    copies = _copies(rows, source.id, new_id)
    if not copies:
        return True
    await connection.execute(insert(MessageRow), copies)
    values = {"session": new_id, "following": len(copies), "scale": source.token_scale}
    await connection.execute(NUMBER, values)
    summaries = [copy for copy in copies if copy["kind"] == "summary" and copy["replaced_by"] is None]
    if summaries:
        newest = summaries[-1]
        await sessions.note_summary(connection, new_id, newest["id"], newest["context"]["until"])
    await _copy_turns(connection, rows, source.id, new_id, until)
    if rows[-1].turn_id is not None:
        await _answer_open_calls(connection, new_id, _turn_id(new_id, rows[-1].turn_id), unanswered)
    return True


def _turn_id(new_id: str, turn_id: str) -> str:
    """The id of a copied turn. Every look at a turn's rows goes by its id, so two sessions cannot share one."""
    return row_id(new_id, "turn", turn_id)


def _copies(rows: Sequence[Row[Any]], source_id: str, new_id: str) -> list[dict[str, Any]]:
    here = {row.turn_id for row in rows if row.turn_id is not None}
    copies = []
    for row in rows:
        sender_id = row.client_message_id
        by_sender = sender_id is not None and row.id == row_id(source_id, "user", sender_id)
        replaced_by = row.replaced_by
        if replaced_by is not None and replaced_by != DELETED:
            replaced_by = _turn_id(new_id, replaced_by) if replaced_by in here else None
        copies.append(
            {
                **row._asdict(),
                "id": row_id(new_id, "user", sender_id) if by_sender else row_id(new_id, "fork", row.id),
                "session_id": new_id,
                "turn_id": _turn_id(new_id, row.turn_id) if row.turn_id is not None else None,
                "replaced_by": replaced_by,
            }
        )
    return copies


async def _copy_turns(
    connection: Connection, rows: Sequence[Row[Any]], source_id: str, new_id: str, until: int
) -> None:
    """Copy the turns of these rows. The last one may have gone on behind them; without a word here it has not begun."""
    last = rows[-1]
    here = {row.turn_id for row in rows if row.turn_id is not None}
    last_words = {row.turn_id: row for row in rows if row.role != "user" and row.turn_id is not None}
    is_cut = await connection.scalar(BEHIND, {"turn": last.turn_id, "until": until}) is not None
    copies = []
    for turn in await connection.execute(TURNS, {"session": source_id}):
        is_whole = TurnStatus(turn.status).final and not (is_cut and turn.turn_id == last.turn_id)
        if turn.turn_id not in (here if is_whole else last_words):
            continue
        copy = {
            **turn._asdict(),
            "turn_id": _turn_id(new_id, turn.turn_id),
            "session_id": new_id,
            "retry_of": _turn_id(new_id, turn.retry_of) if turn.retry_of is not None else None,
            "forked_from": turn.turn_id,
        }
        if not is_whole:
            copy |= _cut(copy, last_words[turn.turn_id])
        elif turn.progress is not None:
            copy["progress"] = {**turn.progress, "turn_id": copy["turn_id"], "session_id": new_id}
        copies.append(copy)
    if copies:
        await connection.execute(insert(TurnRow), copies)


def _cut(turn: dict[str, Any], last: Row[Any]) -> dict[str, Any]:
    """The end of a turn of which only a part was copied, up to the row `last`: it is complete as far as it goes."""
    ended_at = max(last.created_at, turn["started_at"])
    duration_ms = round((ended_at - turn["started_at"]).total_seconds() * 1000)
    progress = Progress(
        turn_id=turn["turn_id"],
        session_id=turn["session_id"],
        status=TurnStatus.COMPLETED,
        round=last.round or 0,
        model=turn["model"],
        started_at=turn["started_at"],
        ended_at=ended_at,
        duration_ms=duration_ms,
    )
    return {
        "status": TurnStatus.COMPLETED,
        "error": None,
        "progress": progress.model_dump(mode="json"),
        "ended_at": ended_at,
        "duration_ms": duration_ms,
    }


async def _answer_open_calls(connection: Connection, session_id: str, turn_id: str, unanswered: str) -> None:
    calls = await conversation.open_tool_calls_of_turn(connection, turn_id)
    rows = [tool_row(turn_id, call.round, call.id, call.name, unanswered, is_error=True) for call in calls]
    if rows:
        await messages.append(connection, session_id, rows)
