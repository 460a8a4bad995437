"""Tool calls that tool workers run: what they are given, which token counts, and what they have answered.

Each change locks the session's row first. So a result, a Stop and the end of the turn are put in order, and a result
counts only if it came first.
"""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, select, update

from longhaul.contracts import ToolStatus, TurnRef
from longhaul.db import turns
from longhaul.db.connection import Connection
from longhaul.db.messages import lock_session, replace_unstorable, row_id
from longhaul.db.models import RemoteCallRow, SessionRow, TurnRow, columns_of, utc_now
from longhaul.errors import CallEndedError, NotFoundError, ResultGivenError, TokenReplacedError, TurnEndedError


class RemoteCall(NamedTuple):
    """A call that a tool worker runs, or has run. See `RemoteCallRow`."""

    id: str
    session_id: str
    user_id: str
    turn_id: str
    parent_turn_id: str
    published: bool
    tool_call_id: str
    tool_name: str
    arguments: str | None
    new_arguments: str | None
    attempt: int
    token_id: str | None
    worker: str | None
    status: str | None
    output: str | None
    duration_ms: int
    ended_at: datetime | None

    @property
    def turn(self) -> TurnRef:
        return TurnRef(
            session_id=self.session_id,
            turn_id=self.turn_id,
            user_id=self.user_id,
            published=self.published,
            parent_turn_id=self.parent_turn_id,
        )


class NewRemoteCall(NamedTuple):
    """A call that is about to wait for a tool worker."""

    id: str
    turn: TurnRef
    tool_call_id: str
    tool_name: str
    arguments: str
    new_arguments: str | None


class CallToken(NamedTuple):
    """What a call token says: the call, the attempt at it, and the token's own name."""

    remote_call_id: str
    attempt: int
    token_id: str


class GivenResult(NamedTuple):
    """How a tool has ended on a tool worker."""

    status: ToolStatus
    output: str
    duration_ms: int


CALLS = select(*columns_of(RemoteCallRow, RemoteCall))
BY_ID = CALLS.where(RemoteCallRow.id == bindparam("call"))
#: Whether the call's turn was stopped, or has ended.
TURN_IS_OVER = (
    select((SessionRow.stopped_turn_id == RemoteCallRow.turn_id).label("stopped"), TurnRow.ended_at)
    .select_from(RemoteCallRow)
    .join(SessionRow, SessionRow.id == RemoteCallRow.session_id)
    .outerjoin(TurnRow, TurnRow.turn_id == RemoteCallRow.turn_id)
    .where(RemoteCallRow.id == bindparam("call"))
)


def id_of(turn_id: str, round_: int, tool_call_id: str) -> str:
    """The id of a call for tool workers; its activity has the same."""
    return row_id(turn_id, round_, "remote", tool_call_id)


async def open_call(connection: Connection, new: NewRemoteCall) -> None:
    """Let a call wait for a tool worker, unless it is known already.

    Raises:
        NotFoundError: the session was deleted.
        TurnEndedError: the turn's end is stored.
    """
    turn = new.turn
    await lock_session(connection, turn.session_id)
    if await find(connection, new.id) is not None:
        return
    if await turns.has_ended(connection, turn.turn_id):
        raise TurnEndedError(turn.turn_id)
    values = {
        **turn.model_dump(),
        "id": new.id,
        "tool_call_id": new.tool_call_id,
        "tool_name": new.tool_name,
        "arguments": replace_unstorable(new.arguments),
        "new_arguments": replace_unstorable(new.new_arguments) if new.new_arguments is not None else None,
        "opened_at": utc_now(),
    }
    await connection.execute(insert(RemoteCallRow), values)


async def begin(connection: Connection, token: CallToken, worker: str) -> RemoteCall:
    """Let an attempt have the call, which is returned; every token that was given out before counts no more.

    Raises:
        NotFoundError: there is no such call.
        CallEndedError: it has ended.
        TokenReplacedError: a later attempt has it.
    """
    row = await _locked(connection, token.remote_call_id)
    await _raise_if_over(connection, row)
    if token.attempt < row.attempt:
        raise TokenReplacedError
    await _update(connection, row.id, attempt=token.attempt, token_id=token.token_id, worker=worker)
    return row


async def of_token(connection: Connection, token: CallToken) -> RemoteCall:
    """The call of a token that counts.

    Raises:
        NotFoundError: there is no such call.
        CallEndedError: it has ended.
        TokenReplacedError: another token has taken the place of this one.
        ResultGivenError: the call has its result.
    """
    row = await _get(connection, token.remote_call_id)
    await _raise_unless_counts(connection, row, token)
    if row.status is not None:
        raise ResultGivenError
    return row


async def give(connection: Connection, token: CallToken, result: GivenResult) -> None:
    """Keep the result of a call until its turn takes it. The same result again changes nothing.

    Raises:
        NotFoundError, CallEndedError, TokenReplacedError: as `of_token`.
        ResultGivenError: the call has another result.
    """
    row = await _locked(connection, token.remote_call_id)
    await _raise_unless_counts(connection, row, token)
    output = replace_unstorable(result.output)
    if row.status is None:
        values = {"status": result.status, "output": output, "duration_ms": result.duration_ms}
        await _update(connection, row.id, **values)
    elif (row.status, row.output) != (result.status, output):
        raise ResultGivenError


async def end(connection: Connection, remote_call_id: str) -> RemoteCall:
    """End a call: from now on nothing is taken from tool workers. The call as it was.

    Raises:
        NotFoundError: the session was deleted.
    """
    row = await _locked(connection, remote_call_id)
    if row.ended_at is None:
        await _update(connection, row.id, ended_at=utc_now())
    return row


async def forget_texts(connection: Connection, remote_call_id: str) -> None:
    """Remove the texts of a call that has ended: its result is a message now."""
    await _update(connection, remote_call_id, arguments=None, new_arguments=None, output=None)


async def find(connection: Connection, remote_call_id: str) -> RemoteCall | None:
    """A call; None: there is none of this id."""
    row = (await connection.execute(BY_ID, {"call": remote_call_id})).first()
    return RemoteCall._make(row) if row is not None else None


async def _get(connection: Connection, remote_call_id: str) -> RemoteCall:
    row = await find(connection, remote_call_id)
    if row is None:
        raise NotFoundError("There is no such tool call.")
    return row


async def _locked(connection: Connection, remote_call_id: str) -> RemoteCall:
    row = await _get(connection, remote_call_id)
    await lock_session(connection, row.session_id)
    return await _get(connection, remote_call_id)


async def _raise_if_over(connection: Connection, row: RemoteCall) -> None:
    turn = (await connection.execute(TURN_IS_OVER, {"call": row.id})).first()
    if row.ended_at is not None or turn is None or turn.stopped or turn.ended_at is not None:
        raise CallEndedError


async def _raise_unless_counts(connection: Connection, row: RemoteCall, token: CallToken) -> None:
    await _raise_if_over(connection, row)
    if (row.attempt, row.token_id) != (token.attempt, token.token_id):
        raise TokenReplacedError


async def _update(connection: Connection, remote_call_id: str, **values: Any) -> None:
    await connection.execute(update(RemoteCallRow).where(RemoteCallRow.id == remote_call_id).values(**values))
