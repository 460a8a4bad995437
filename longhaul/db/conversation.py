"""Read a conversation: whole, by turn, by page, and the tool calls in it that have no result."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Select, bindparam, distinct, func, select
from sqlalchemy.engine import Row

from longhaul.db.connection import Connection
from longhaul.db.messages import IN_CONVERSATION, STORED_MESSAGES, StoredMessage
from longhaul.db.models import MessageRow, SessionRow, TurnRow, columns_of

WIDEN_BY = 200
#: Rows that a model call reads at most. A conversation is summarised long before; this is for when that fails.
ROWS_MAX = 1_000


class PromptMessage(NamedTuple):
    """The part of a row that a model call needs. Of 10,000 rows it takes 30 ms to read, the whole rows take 80."""

    id: str
    sequence: int
    role: str
    kind: str
    content: str
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    turn_id: str | None
    context: dict[str, Any] | None


class CallRow(NamedTuple):
    """The part of a row that tells which call of a tool failed."""

    role: str
    round: int
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    is_error: bool


class SameCall(NamedTuple):
    """A tool call, for the question whether it was made before: the same tool, and the same arguments as JSON."""

    turn_id: str
    round: int
    tool_name: str
    arguments: str


class OpenToolCall(NamedTuple):
    """A tool call that has no result row."""

    id: str
    name: str
    turn_id: str
    round: int


#: Rows that another version of a message has replaced are kept, and shown to nobody who reads the conversation.
NOT_REPLACED = MessageRow.replaced_by.is_(None)
OF_ROUND = STORED_MESSAGES.where(
    MessageRow.turn_id == bindparam("turn"), MessageRow.round == bindparam("in_round")
).order_by(MessageRow.sequence)
OF_TURN = STORED_MESSAGES.where(
    MessageRow.turn_id == bindparam("turn"), MessageRow.sequence > bindparam("after")
).order_by(MessageRow.sequence)
PROMPT_MESSAGES = select(*columns_of(MessageRow, PromptMessage)).where(
    MessageRow.session_id == bindparam("session"), NOT_REPLACED
)
#: Newest first. Summaries lie among the rows, but they stand for rows before them.
FOR_MODEL = (
    PROMPT_MESSAGES.where(
        MessageRow.sequence > bindparam("after"), MessageRow.role != "reasoning", MessageRow.kind != "summary"
    )
    .order_by(MessageRow.sequence.desc())
    .limit(bindparam("most"))
)
OF_PERSON = PROMPT_MESSAGES.where(
    MessageRow.sequence < bindparam("before"), MessageRow.role == "user", MessageRow.kind != "follow_up"
)
FIRST_OF_PERSON = OF_PERSON.order_by(MessageRow.sequence).limit(1)
NEWEST_OF_PERSON = OF_PERSON.order_by(MessageRow.sequence.desc()).limit(1)
CALLS_OF_TURN = select(MessageRow.tool_calls).where(
    MessageRow.turn_id == bindparam("turn"), MessageRow.role == "assistant", IN_CONVERSATION
)
RESULT_OF = (
    select(MessageRow.content)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.role == "tool",
        MessageRow.tool_call_id == bindparam("call"),
        IN_CONVERSATION,
    )
    .order_by(MessageRow.sequence.desc())
    .limit(1)
)
SUCCESS_OF = (
    select(MessageRow.id)
    .where(
        MessageRow.session_id == bindparam("session"),
        MessageRow.role == "tool",
        MessageRow.tool_name == bindparam("tool"),
        MessageRow.is_error.is_(False),
        IN_CONVERSATION,
        NOT_REPLACED,
    )
    .limit(1)
)
BETWEEN_ROUNDS = (
    MessageRow.turn_id == bindparam("turn"),
    MessageRow.round >= bindparam("first"),
    MessageRow.round < bindparam("end"),
    IN_CONVERSATION,
)
FAILURES_BETWEEN = (
    select(func.count(distinct(MessageRow.round)))
    .select_from(MessageRow)
    .where(*BETWEEN_ROUNDS, MessageRow.tool_name == bindparam("tool"), MessageRow.is_error.is_(True))
)
CALLS_BETWEEN = select(*columns_of(MessageRow, CallRow)).where(*BETWEEN_ROUNDS)
RESULT_IN_TURN = select(MessageRow.content).where(
    MessageRow.turn_id == bindparam("turn"),
    MessageRow.role == "tool",
    MessageRow.tool_call_id == bindparam("call"),
    IN_CONVERSATION,
)
CALLS_AND_RESULTS = (
    select(MessageRow.role, MessageRow.tool_calls, MessageRow.tool_call_id, MessageRow.turn_id, MessageRow.round)
    .where(IN_CONVERSATION, NOT_REPLACED, MessageRow.role.in_(("assistant", "tool")))
    .order_by(MessageRow.sequence.desc())
)
CALLS_AND_RESULTS_OF_TURN = CALLS_AND_RESULTS.where(MessageRow.turn_id == bindparam("turn"))
CALLS_AND_RESULTS_OF_TURN_BEFORE = CALLS_AND_RESULTS.where(
    MessageRow.turn_id
    == select(TurnRow.turn_id)
    .where(TurnRow.session_id == bindparam("session"), TurnRow.turn_id != bindparam("turn"))
    .order_by(TurnRow.started_at.desc(), TurnRow.turn_id)
    .limit(1)
    .scalar_subquery()
)
NEWEST_CALLS_AND_RESULTS = CALLS_AND_RESULTS.where(MessageRow.session_id == bindparam("session")).limit(
    bindparam("last")
)


async def _stored(
    connection: Connection, statement: Select[Any], values: dict[str, Any] | None = None
) -> list[StoredMessage]:
    return [StoredMessage._make(row) for row in await connection.execute(statement, values)]


async def for_model(connection: Connection, session_id: str, after: int = -1) -> list[PromptMessage]:
    """What a model may see of a session: the rows behind a sequence, oldest first, reasoning left out.

    The first message of a person and the newest one are there in any case, in their place. Of more than `ROWS_MAX` rows
    the newest are read.
    """
    values = {"session": session_id, "after": after, "most": ROWS_MAX}
    rows = [PromptMessage._make(row) for row in await connection.execute(FOR_MODEL, values)]
    rows.reverse()
    begins = rows[0].sequence if rows else after + 1
    if begins <= 0:
        return rows
    missing = [FIRST_OF_PERSON]
    if not any(row.role == "user" and row.kind != "follow_up" for row in rows):
        missing.append(NEWEST_OF_PERSON)
    found = [await connection.execute(one, {"session": session_id, "before": begins}) for one in missing]
    earlier = {message.sequence: message for result in found for message in map(PromptMessage._make, result)}
    return [*earlier.values(), *rows]


async def call_ids_of_turn(connection: Connection, turn_id: str) -> list[str]:
    """The ids of all tool calls that the model has made in a turn."""
    rows = await connection.execute(CALLS_OF_TURN, {"turn": turn_id})
    return [call["id"] for row in rows for call in row.tool_calls or ()]


async def tool_result(connection: Connection, session_id: str, tool_call_id: str) -> str | None:
    """The output of a tool call of this session, the newest if ids repeat; None if there is none."""
    content: str | None = await connection.scalar(RESULT_OF, {"session": session_id, "call": tool_call_id})
    return content


async def result_in_turn(connection: Connection, turn_id: str, tool_call_id: str) -> str | None:
    """The output of a tool call of this turn; None if there is none."""
    content: str | None = await connection.scalar(RESULT_IN_TURN, {"turn": turn_id, "call": tool_call_id})
    return content


async def rows_of_round(connection: Connection, turn_id: str, round_: int) -> list[StoredMessage]:
    """A round's rows in order."""
    return await _stored(connection, OF_ROUND, {"turn": turn_id, "in_round": round_})


def arguments_of_call(rows: Iterable[StoredMessage], tool_call_id: str) -> str | None:
    """The arguments of a tool call as the model wrote them, from the rows of its round; None: it made no such call."""
    made = (call for row in rows for call in row.tool_calls or () if call["id"] == tool_call_id)
    return next((call["function"]["arguments"] for call in made), None)


def name_of_call(rows: Iterable[StoredMessage], tool_call_id: str) -> str | None:
    """The tool's name in a call as the model wrote it, from the rows of its round; None: it made no such call."""
    made = (call for row in rows for call in row.tool_calls or () if call["id"] == tool_call_id)
    return next((call["function"]["name"] for call in made), None)


def cut_off_call(finish_reason: str | None, tool_calls: Sequence[dict[str, Any]] | None) -> str | None:
    """The id of the call that an answer's length limit has cut off: its last one. None: the answer is whole."""
    return tool_calls[-1]["id"] if finish_reason == "length" and tool_calls else None


async def has_succeeded(connection: Connection, session_id: str, tool_name: str) -> bool:
    """Whether a call of this tool has succeeded in a session."""
    return await connection.scalar(SUCCESS_OF, {"session": session_id, "tool": tool_name}) is not None


async def failures_before(connection: Connection, call: SameCall, rounds: int) -> int:
    """In how many of the `rounds` before a call's the same call failed, without a success or a message in between."""
    values = {"turn": call.turn_id, "first": call.round - rounds, "end": call.round, "tool": call.tool_name}
    if (await connection.scalar(FAILURES_BETWEEN, values) or 0) < rounds:
        return 0
    rows = [CallRow._make(row) for row in await connection.execute(CALLS_BETWEEN, values)]
    if any(row.role == "user" for row in rows):
        return 0
    wanted = _decoded(call.arguments)
    same = {
        (row.round, made["id"])
        for row in rows
        for made in row.tool_calls or ()
        if made["function"]["name"] == call.tool_name and _decoded(made["function"]["arguments"]) == wanted
    }
    results = [row for row in rows if (row.round, row.tool_call_id) in same and row.role == "tool"]
    if not all(row.is_error for row in results):
        return 0
    return len({row.round for row in results})


def _decoded(arguments: str) -> Any:
    """Arguments for a comparison: as JSON, else as the text that they are."""
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments


async def rows_of_turn(connection: Connection, turn_id: str, after: int = -1) -> list[StoredMessage]:
    """A turn's rows behind a sequence, in order."""
    return await _stored(connection, OF_TURN, {"turn": turn_id, "after": after})


async def length(connection: Connection, session_id: str) -> int:
    """How many rows a conversation has."""
    visible = (MessageRow.session_id == session_id, IN_CONVERSATION, NOT_REPLACED)
    rows = select(func.count()).select_from(MessageRow).where(*visible)
    return await connection.scalar(rows) or 0


async def open_tool_calls(connection: Connection, session_id: str, last: int) -> list[OpenToolCall]:
    """Tool calls among the newest `last` rows of a session that have no result row, oldest first."""
    return _without_result(await connection.execute(NEWEST_CALLS_AND_RESULTS, {"session": session_id, "last": last}))


async def open_tool_calls_of_turn(connection: Connection, turn_id: str) -> list[OpenToolCall]:
    """Tool calls of a turn that have no result row, oldest first."""
    return _without_result(await connection.execute(CALLS_AND_RESULTS_OF_TURN, {"turn": turn_id}))


async def open_tool_calls_before(connection: Connection, session_id: str, turn_id: str) -> list[OpenToolCall]:
    """Tool calls of the session's newest other turn that have no result row, oldest first."""
    values = {"session": session_id, "turn": turn_id}
    return _without_result(await connection.execute(CALLS_AND_RESULTS_OF_TURN_BEFORE, values))


def _without_result(newest_first: Iterable[Row[Any]]) -> list[OpenToolCall]:
    rows = list(newest_first)
    answered = {(row.turn_id, row.tool_call_id) for row in rows if row.role == "tool"}
    return [
        OpenToolCall(call["id"], call["function"]["name"], row.turn_id, row.round)
        for row in reversed(rows)
        for call in row.tool_calls or ()
        if (row.turn_id, call["id"]) not in answered
    ]


async def page(
    connection: Connection, session_id: str, user_id: str, limit: int, before: int | None
) -> tuple[list[StoredMessage], bool]:
    """One page of a user's conversation, and whether older rows exist.

    The page has up to `limit` rows before a sequence, oldest first. It gets more rows so that it never begins with a
    tool result whose call is missing, and so that it shows a person or an answer if one is among the `WIDEN_BY` rows
    before it.
    """
    statement = _newest_first(session_id, user_id)
    if before is not None:
        statement = statement.where(MessageRow.sequence < before)
    newest = await _stored(connection, statement.limit(limit + 1))
    rows, more = newest[:limit], len(newest) > limit
    if more and rows[-1].role == "tool":
        rows += await _back_to_call(connection, user_id, rows[-1])
    if more and not any(map(_is_spoken, rows)):
        statement = _newest_first(session_id, user_id).where(MessageRow.sequence < rows[-1].sequence).limit(WIDEN_BY)
        older = await _stored(connection, statement)
        rows += older[: next((index for index, row in enumerate(older) if _is_spoken(row)), len(older)) + 1]
    rows.reverse()
    return rows, more and rows[0].sequence > 0


def _newest_first(session_id: str, user_id: str) -> Select[Any]:
    return (
        STORED_MESSAGES.join(SessionRow, SessionRow.id == MessageRow.session_id)
        .where(MessageRow.session_id == session_id, SessionRow.user_id == user_id, NOT_REPLACED)
        .order_by(MessageRow.sequence.desc())
    )


def _is_spoken(row: StoredMessage) -> bool:
    return row.role in ("user", "assistant")


async def page_of_whole_turns(
    connection: Connection, session_id: str, user_id: str, limit: int, before: int | None
) -> tuple[list[StoredMessage], bool]:
    """A page as `page` returns it, with the beginning of its first turn: so no turn is cut in two."""
    rows, more = await page(connection, session_id, user_id, limit, before)
    if not more or rows[0].turn_id is None:
        return rows, more
    beginning = _newest_first(session_id, user_id).where(
        MessageRow.turn_id == rows[0].turn_id, MessageRow.sequence < rows[0].sequence
    )
    rows = [*reversed(await _stored(connection, beginning)), *rows]
    return rows, rows[0].sequence > 0


async def replaced_by_turn(connection: Connection, session_id: str, turn_id: str) -> list[StoredMessage]:
    """The rows that a turn has taken out of the conversation, in order: a message and what followed it."""
    statement = STORED_MESSAGES.where(MessageRow.session_id == session_id, MessageRow.replaced_by == turn_id)
    return await _stored(connection, statement.order_by(MessageRow.sequence))


async def _back_to_call(connection: Connection, user_id: str, tool: StoredMessage) -> list[StoredMessage]:
    """The rows before a tool row, back to the one that made its call; none if there is no such row."""
    earlier = _newest_first(tool.session_id, user_id).where(MessageRow.sequence < tool.sequence)
    of_turn = earlier.where(MessageRow.turn_id == tool.turn_id, MessageRow.role == "assistant")
    for row in await _stored(connection, of_turn):
        if any(call["id"] == tool.tool_call_id for call in row.tool_calls or ()):
            return await _stored(connection, earlier.where(MessageRow.sequence >= row.sequence))
    return []
