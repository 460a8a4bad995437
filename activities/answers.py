"""A round's answer as rows, and back."""

from dataclasses import dataclass
from typing import Any

from longhaul.contracts import CallModel, Usage
from longhaul.db import conversation, ledger, messages
from longhaul.db.connection import Connection
from longhaul.db.ledger import LedgerEntry
from longhaul.db.messages import NewMessage, StoredMessage, row_id
from longhaul.llm.completion import Completion

#: The kind of a row whose text was cut off, and why it was.
PARTIAL = "partial"
STOPPED, CUT_OFF = "cancelled", "cut_off"


@dataclass(frozen=True)
class StoredAnswer:
    """A round's answer as its row holds it; `tool_calls` in the OpenAI shape.

    `is_ours`: it is the answer that this attempt received. Otherwise an attempt that had been given up has stored its
    own answer first, and that one counts.
    """

    message_id: str
    text: str
    tool_calls: list[dict[str, Any]]
    finish_reason: str
    usage: Usage
    is_ours: bool = False

    @classmethod
    def from_row(cls, row: StoredMessage) -> "StoredAnswer":
        return cls(
            message_id=row.id,
            text=row.content,
            tool_calls=row.tool_calls or [],
            finish_reason=row.finish_reason or "",
            usage=Usage.model_validate(row.usage or {}),
        )


async def store_answer(connection: Connection, call: CallModel, completion: Completion) -> StoredAnswer:
    """Reasoning, answer and ledger entry in one transaction. An answer that is stored already stays and counts."""
    turn = call.turn
    rows = answer_rows(call, completion, "message")
    answer = rows[-1]
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
    ours = StoredAnswer(
        message_id=answer.id,
        text=completion.text,
        tool_calls=answer.tool_calls or [],
        finish_reason=completion.finish_reason,
        usage=completion.usage,
        is_ours=True,
    )
    if answer.id in appended:
        return ours
    stored = await conversation.rows_of_round(connection, turn.turn_id, call.round)
    theirs = StoredAnswer.from_row(next(row for row in stored if row.id == answer.id))
    same = (theirs.text, theirs.tool_calls) == (messages.replace_unstorable(ours.text), ours.tool_calls)
    return ours if same else theirs


def partial_rows(call: CallModel, completion: Completion, reason: str) -> list[NewMessage]:
    """The rows of an answer that was cut off: its text, without tool calls, which may be incomplete."""
    if not (completion.text or completion.reasoning):
        return []
    return answer_rows(call, completion.model_copy(update={"tool_calls": [], "finish_reason": reason}), PARTIAL)


def answer_rows(call: CallModel, completion: Completion, kind: str) -> list[NewMessage]:
    """The reasoning row, if there is reasoning, and the assistant's row."""
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
