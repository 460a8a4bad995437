"""A model's answer as rows, and back."""

from typing import NamedTuple

from longhaul.contracts import CallModel, ModelAnswer, ToolCall, Usage
from longhaul.db import conversation, ledger, messages
from longhaul.db.database import Connection
from longhaul.db.ledger import LedgerEntry
from longhaul.db.messages import NewMessage, StoredMessage, row_id
from longhaul.llm.completion import Completion
from longhaul.tools.workflow_tools import WORKFLOW_TOOLS


class Stored(NamedTuple):
    """What is stored now; `as_given`: it says what was to be stored, and not what another try has got before."""

    answer: ModelAnswer
    as_given: bool


async def store_answer(connection: Connection, call: CallModel, completion: Completion) -> Stored:
    """Reasoning, answer and ledger entry in one transaction. An answer that is there already stays and holds."""
    turn = call.turn
    rows = _rows(call, completion, "message")
    appended = await messages.append(connection, turn.session_id, rows)
    await ledger.book(
        connection,
        LedgerEntry(
            id=row_id(turn.turn_id, call.round, "usage"),
            user_id=turn.user_id,
            session_id=turn.session_id,
            path=call.scope.path(turn.session_id),
            turn_id=turn.turn_id,
            round=call.round,
            model=completion.model or call.model,
            usage=completion.usage,
        ),
    )
    if rows[-1].id in appended:
        return Stored(_answer(call, completion), as_given=True)
    found = await conversation.rows_of_round(connection, turn.turn_id, call.round)
    row = next(row for row in found if row.id == rows[-1].id)
    same = (row.content, row.tool_calls) == (messages.replace_unstorable(completion.text), rows[-1].tool_calls)
    return Stored(answer_from_row(row), as_given=same)


def partial_rows(call: CallModel, completion: Completion) -> list[NewMessage]:
    """What a stopped call had given: its text without the tool calls that it may not have finished."""
    if not completion.text and not completion.reasoning:
        return []
    cut = completion.model_copy(update={"tool_calls": [], "finish_reason": "cancelled"})
    return _rows(call, cut, "partial")


def _rows(call: CallModel, completion: Completion, kind: str) -> list[NewMessage]:
    turn_id, round_ = call.turn.turn_id, call.round
    answer = NewMessage(
        id=row_id(turn_id, round_, "assistant"),
        role="assistant",
        kind=kind,
        content=completion.text,
        tool_calls=[
            {"id": made.id, "type": "function", "function": {"name": made.name, "arguments": made.arguments}}
            for made in completion.tool_calls
        ]
        or None,
        turn_id=turn_id,
        round=round_,
        finish_reason=completion.finish_reason,
        usage=completion.usage.model_dump(),
        duration_ms=completion.duration_ms,
    )
    if not completion.reasoning:
        return [answer]
    reasoning = NewMessage(
        id=row_id(turn_id, round_, "reasoning"),
        role="reasoning",
        content=completion.reasoning,
        turn_id=turn_id,
        round=round_,
    )
    return [reasoning, answer]


def _answer(call: CallModel, completion: Completion) -> ModelAnswer:
    return ModelAnswer(
        message_id=row_id(call.turn.turn_id, call.round, "assistant"),
        finish_reason=completion.finish_reason,
        has_text=bool(completion.text.strip()),
        tool_calls=[_tool_call(made.id, made.name, made.arguments) for made in completion.tool_calls],
        usage=completion.usage,
    )


def answer_from_row(row: StoredMessage) -> ModelAnswer:
    """The answer that an earlier try stored."""
    return ModelAnswer(
        message_id=row.id,
        finish_reason=row.finish_reason or "",
        has_text=bool(row.content.strip()),
        tool_calls=[
            _tool_call(made["id"], made["function"]["name"], made["function"]["arguments"])
            for made in row.tool_calls or ()
        ],
        usage=Usage.model_validate(row.usage or {}),
    )


def _tool_call(call_id: str, name: str, arguments: str) -> ToolCall:
    return ToolCall(tool_call_id=call_id, name=name, arguments=arguments if name in WORKFLOW_TOOLS else None)
