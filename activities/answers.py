"""The rows of a round: what its model call is built from, its answer, and with the final answer the turn's end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from longhaul.contracts import CallModel, CloseTurn, OpenTurn, Progress, TurnRef, TurnStatus, Usage
from longhaul.db import (
    acceptance,
    client_tools,
    conversation,
    encrypted_reasoning,
    ledger,
    messages,
    profiles,
    sessions,
    turns,
)
from longhaul.db.connection import Connection
from longhaul.db.conversation import PromptMessage
from longhaul.db.ledger import PaidCall
from longhaul.db.messages import NewMessage, StoredMessage, row_id
from longhaul.db.models import utc_now
from longhaul.db.sessions import Session
from longhaul.db.turns import NewTurn
from longhaul.errors import TurnEndedError
from longhaul.llm import prompts
from longhaul.llm.completion import Completion
from longhaul.llm.request import About
from longhaul.llm.responses import EncryptedReasoning
from longhaul.llm.tokens import scale_from
from longhaul.streams.blocks import AT, Block, blocks_of_rows
from longhaul.tools.client_tools import ClientTool, offered

#: The kind of a row whose text was cut off, and why it was.
PARTIAL = "partial"
STOPPED, CUT_OFF = "cancelled", "cut_off"


@dataclass(frozen=True)
class StoredAnswer:
    """A round's answer as its row holds it; `tool_calls` in the OpenAI shape.

    `usage` is that of all attempts at the call.
    `blocks`: text and reasoning in their order.
    `is_ours`: it is the answer that this attempt received. Otherwise a timed-out attempt stored its own answer first,
    and that one counts. `turn_ended_at`: the turn ended in the transaction that stored the answer. `is_partial`: the
    attempt that stored it had no retry left, and kept the text that was cut off.
    """

    message_id: str
    text: str
    tool_calls: list[dict[str, Any]]
    finish_reason: str
    usage: Usage
    is_ours: bool = False
    turn_ended_at: datetime | None = None
    is_partial: bool = False
    compaction_due: bool = False
    model: str | None = None
    blocks: tuple[Block, ...] = ()

    @classmethod
    def from_rows(
        cls, thoughts: Sequence[StoredMessage], row: StoredMessage, usage: Usage, turn_ended_at: datetime | None
    ) -> "StoredAnswer":
        return cls(
            message_id=row.id,
            text=row.content,
            tool_calls=row.tool_calls or [],
            finish_reason=row.finish_reason or "",
            usage=usage,
            turn_ended_at=turn_ended_at,
            is_partial=row.kind == PARTIAL,
            model=row.model,
            blocks=tuple(blocks_of_rows(thoughts, row)),
        )


@dataclass(frozen=True)
class Prompt:
    """What a request is built from.

    `about`: what stands behind the first message. `rows`: the conversation behind its summary, if there is one.
    `stored`: this round's answer, if an earlier attempt has stored it. `call_ids`: the tool calls that the model has
    made in this turn. `token_scale`: how many tokens the endpoint counted for an estimated one in the session's last
    call. `images`: those that the model is shown, as data URLs by file id. `encrypted`: what the turn's model has
    reasoned in its earlier rounds, by assistant row, for the endpoint alone. `client_tools`: tools that the client
    runs, by name.
    """

    about: About
    rows: Sequence[PromptMessage]
    stored: StoredAnswer | None
    call_ids: list[str]
    token_scale: float | None
    images: Mapping[str, str] = field(default_factory=dict)
    encrypted: Mapping[str, list[EncryptedReasoning]] = field(default_factory=dict)
    client_tools: dict[str, ClientTool] = field(default_factory=dict)


async def load_prompt(connection: Connection, call: CallModel, reasoned_by: str = "") -> Prompt:
    """What a round's request is built from. `reasoned_by`: the model that is sent its encrypted reasoning, if any."""
    session_id, turn_id = call.turn.session_id, call.turn.turn_id
    session = await sessions.get(connection, session_id)
    rows = await unsummarised(connection, session)
    summarised = session.summary_id is not None
    summarised_calls = await conversation.call_ids_of_turn(connection, turn_id) if summarised else []
    return Prompt(
        about=About(
            user_profile=await profiles.get(connection, session.user_id),
            session_context=session.system_context,
            summary=await summary_of(connection, session),
        ),
        rows=rows,
        stored=await stored_answer(connection, call),
        call_ids=[
            *summarised_calls,
            *(made["id"] for row in rows if row.turn_id == turn_id for made in row.tool_calls or ()),
        ],
        token_scale=session.token_scale,
        encrypted=await _encrypted(connection, turn_id, reasoned_by) if reasoned_by and call.round > 1 else {},
        client_tools=offered(await client_tools.load(connection, call.client_tools), call.scope),
    )


async def _encrypted(connection: Connection, turn_id: str, model: str) -> dict[str, list[EncryptedReasoning]]:
    found = await encrypted_reasoning.of_turn(connection, turn_id, model)
    return {row: [EncryptedReasoning.model_validate(item) for item in items] for row, items in found.items()}


async def unsummarised(connection: Connection, session: Session) -> list[PromptMessage]:
    """The rows of a session that the model is given word for word."""
    return await conversation.for_model(connection, session.id, summarised_until(session))


def summarised_until(session: Session) -> int:
    """The sequence up to which a summary stands for a session's rows; -1 without one."""
    return -1 if session.summarised_until is None else session.summarised_until


async def summary_of(connection: Connection, session: Session) -> str | None:
    """The newest summary of a session's conversation; None if there is none."""
    row = await messages.get(connection, session.summary_id) if session.summary_id is not None else None
    return row.content if row is not None else None


async def stored_answer(connection: Connection, call: CallModel) -> StoredAnswer | None:
    """The answer of this round that is stored already, or None."""
    row = await messages.get(connection, row_id(call.turn.turn_id, call.round, "assistant"))
    if row is None:
        return None
    session_id, turn_id = call.turn.session_id, call.turn.turn_id
    usage = await ledger.usage_of_round(connection, session_id, turn_id, call.round)
    rows = await conversation.rows_of_round(connection, turn_id, call.round)
    thoughts = [one for one in rows if one.role == "reasoning"]
    return StoredAnswer.from_rows(thoughts, row, usage, await turns.completed_at(connection, session_id, turn_id))


async def store_answer(
    connection: Connection, call: CallModel, completion: Completion, paid: PaidCall, *, may_end_turn: bool = True
) -> StoredAnswer:
    """Reasoning, answer, ledger entry and, with a final answer, the turn's end in one transaction.

    An answer that is stored already stays and counts. `paid`: the attempt that received this one.
    """
    turn = call.turn
    used = paid._replace(model=completion.model or paid.model, generation_id=completion.response_id or None)
    rows = answer_rows(call, completion, "message", used.model)
    answer = rows[-1]
    appended = await append_to_turn(connection, turn, rows)
    await ledger.book(connection, used, completion.usage, estimated=completion.is_estimated)
    if answer.id not in appended and (stored := await stored_answer(connection, call)) is not None:
        received = (messages.replace_unstorable(completion.text), answer.tool_calls or [])
        return replace(stored, is_ours=(stored.text, stored.tool_calls) == received)
    if completion.encrypted:
        items = [one.model_dump() for one in completion.encrypted]
        await encrypted_reasoning.store(connection, answer.id, turn.turn_id, paid.model, items)
    # An estimate says nothing about how the endpoint counts.
    scale = None if completion.is_estimated else scale_from(completion.estimated_tokens, completion.usage.prompt_tokens)
    due = completion.compaction_due
    await sessions.note_call(connection, turn.session_id, token_scale=scale, compaction_due=due)
    usage = completion.usage
    if paid.attempt > 1:
        usage = await ledger.usage_of_round(connection, turn.session_id, turn.turn_id, call.round)
    return StoredAnswer(
        message_id=answer.id,
        text=completion.text,
        tool_calls=answer.tool_calls or [],
        finish_reason=completion.finish_reason,
        usage=usage,
        is_ours=True,
        turn_ended_at=await end_turn(connection, call, completion, paid.model) if may_end_turn else None,
        compaction_due=due,
        model=used.model,
        blocks=tuple(completion.blocks()),
    )


async def append_to_turn(connection: Connection, turn: TurnRef, rows: Sequence[NewMessage]) -> list[str]:
    """Append rows that an unfinished turn has produced; the ids appended.

    Raises:
        TurnEndedError: the turn's end is stored. Clients have seen that end, so nothing may come behind it.
    """
    appended = await messages.append(connection, turn.session_id, rows)
    if appended and await turns.has_ended(connection, turn.turn_id):
        raise TurnEndedError(turn.turn_id)
    return appended


async def end_turn(connection: Connection, call: CallModel, completion: Completion, model: str) -> datetime | None:
    """End the turn with its final answer, unless a message waits for it or a person has stopped it; when it ended.

    `model`: the one that was asked.

    `append` has locked the session, and a message is accepted under the same lock. So a message either waits here, and
    the turn goes on, or it is accepted after this transaction and belongs to the next turn. An answer that needs a
    closing text (it is empty, or was cut off) does not end the turn: `close_turn` does.
    """
    final = completion.text.strip() and not completion.tool_calls
    if call.progress is None or not final or completion.finish_reason in prompts.FINISHED_SHORT:
        return None
    turn = call.turn
    if not await acceptance.can_end(connection, turn.session_id, turn.turn_id):
        return None
    usage = await ledger.usage_of_turn(connection, turn.session_id, turn.turn_id)
    progress = ended_progress(call.progress, usage, model)
    return progress.ended_at if await turns.end(connection, new_turn(call, progress.started_at), progress) else None


def new_turn(call: OpenTurn | CallModel | CloseTurn, started_at: datetime) -> NewTurn:
    """The row of the turn in which an activity works."""
    turn = call.turn
    return NewTurn(turn.turn_id, turn.session_id, turn.user_id, call.model, call.mode, call.tier, started_at)


def ended_progress(progress: Progress, usage: Usage, model: str) -> Progress:
    """The turn's progress after its final answer; `usage`: all that the turn has used, by the ledger."""
    ended_at = utc_now()
    return progress.model_copy(
        update={
            "status": TurnStatus.COMPLETED,
            "inbox": [],
            "model": model,
            "usage": usage,
            "ended_at": ended_at,
            "duration_ms": round((ended_at - progress.started_at).total_seconds() * 1000),
        }
    )


def partial_rows(call: CallModel, completion: Completion, reason: str, model: str) -> list[NewMessage]:
    """The rows of an answer of `model` that was cut off: its text, without tool calls, which may be incomplete."""
    if not (completion.text or completion.reasoning):
        return []
    cut_off = completion.model_copy(update={"tool_calls": [], "finish_reason": reason})
    return answer_rows(call, cut_off, PARTIAL, completion.model or model)


def answer_rows(call: CallModel, completion: Completion, kind: str, model: str) -> list[NewMessage]:
    """A row for each stretch of reasoning, and the assistant's row with all text; `model` wrote them.

    A reasoning row that text comes before says in its context how much of it.
    """
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
        model=model,
    )
    rows: list[NewMessage] = []
    written = 0
    for block in completion.blocks():
        if block.kind == "text":
            written += len(block.text)
            continue
        number = len(rows)
        rows.append(
            NewMessage(
                id=row_id(turn_id, round_, "reasoning", *([number] if number else [])),
                role="reasoning",
                content=block.text,
                turn_id=turn_id,
                round=round_,
                model=model,
                context={AT: written} if written else None,
                duration_ms=block.duration_ms,
            )
        )
    return [*rows, answer]
