"""The model call of a round: recover an earlier attempt's answer, or request, stream and store one; report it."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from openai import OpenAIError
from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import budgets
from activities.attempt import (
    TurnStreams,
    checkpoint,
    handed_over,
    last_checkpoint,
    stop_requested,
    storage_faults,
    when_storage_is_back,
)
from longhaul.contracts import CallModel, ModelAnswer, ToolCall, Usage
from longhaul.db import conversation, ledger, messages, sessions
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.ledger import LedgerEntry
from longhaul.db.messages import NewMessage, StoredMessage, row_id
from longhaul.errors import BUDGET_REACHED, MODEL_FAILED, MODEL_RETRY, StreamBrokenError
from longhaul.llm.client import ModelClient
from longhaul.llm.completion import Assembler, Completion, Piece, priced
from longhaul.llm.failures import backoff, classify
from longhaul.llm.request import fit, openai_messages, request_body, system_message
from longhaul.settings import Settings
from longhaul.streams.events import data_part
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.step_writer import StepWriter, leftovers
from longhaul.tools import Registry
from longhaul.tools.workflow_tools import WORKFLOW_TOOLS


class CallState(BaseModel):
    """Checkpoint of a model call: attempts that failed so far, and the finished answer until it is stored."""

    tries: int = 0
    completion: Completion | None = None


@dataclass(frozen=True)
class Prompt:
    """What a request is built from. `budget_used_up` says which budget is used up, if one is."""

    system_context: str | None
    rows: Sequence[StoredMessage]
    budget_used_up: str | None

    def call_ids(self, turn_id: str) -> list[str]:
        """Ids of the tool calls that the model has made in a turn so far."""
        return [made["id"] for row in self.rows if row.turn_id == turn_id for made in row.tool_calls or ()]


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


class ModelActivities:
    """Calls the model."""

    def __init__(
        self, database: Database, streams: TurnStreams, model_client: ModelClient, tools: Registry, settings: Settings
    ) -> None:
        self._database = database
        self._streams = streams
        self._model_client = model_client
        self._tools = tools
        self._settings = settings

    @activity.defn
    async def call_model(self, call: CallModel) -> ModelAnswer:
        """The answer of one round, stored before this returns.

        Raises:
            ApplicationError: `ModelTryFailed` (Temporal retries), `ModelFailed` (the turn fails), `BudgetReached`,
                `StorageUnavailable`, `HandedOver`.
        """
        state = last_checkpoint(CallState) or CallState()
        async with self._streams.publisher(call.turn) as publisher:
            prompt = await self._load(call)
            answer = await self._recover(call, state, prompt, publisher)
            if answer is None:
                request = self._request(call, prompt)
                step = StepWriter(publisher, call.round, activity.info().attempt)
                assembler = Assembler(prompt.call_ids(call.turn.turn_id))
                completion = await self._stream(call, state, request, assembler, step)
                checkpoint(CallState(tries=state.tries, completion=completion))
                answer = await self._store(call, completion)
                end_step(step, answer)
                publisher.put(data_part("usage", answer.usage.model_dump()))
        return self._report(answer, published=not publisher.broken)

    async def _load(self, call: CallModel) -> Prompt:
        with storage_faults():
            async with self._database.read() as connection:
                session = await sessions.get(connection, call.turn.session_id)
                rows = await conversation.for_model(connection, call.turn.session_id)
                used_up = await budgets.reached(connection, call.turn.session_id, call.scope)
        return Prompt(session.system_context, rows, used_up)

    async def _recover(
        self, call: CallModel, state: CallState, prompt: Prompt, publisher: StreamPublisher
    ) -> StoredAnswer | None:
        """The answer that an earlier attempt has paid for, from its checkpoint or its row.

        None: there is no such answer. In both cases the stream is cleared of an attempt's unfinished step.
        """
        own_row = row_id(call.turn.turn_id, call.round, "assistant")
        row = next((row for row in reversed(prompt.rows) if row.id == own_row), None)
        if state.completion is not None:
            answer = await self._store(call, state.completion)
        elif row is not None:
            answer = StoredAnswer.from_row(row)
        else:
            if activity.info().attempt > 1:
                for part in leftovers(await publisher.since_step(), call.round):
                    publisher.put(part)
            elif call.step_open:
                publisher.put({"type": "finish-step"})
            return None
        parts = await publisher.since_step()
        calls = {made["id"] for made in answer.tool_calls}
        available = {part["toolCallId"] for part in parts if part["type"] == "tool-input-available"}
        step_ended = any(part["type"] == "finish-step" for part in parts) or (calls and available >= calls)
        if not step_ended:
            for part in leftovers(parts, call.round):
                publisher.put(part)
            show_again(StepWriter(publisher, call.round, activity.info().attempt), answer)
        return answer

    def _request(self, call: CallModel, prompt: Prompt) -> dict[str, Any]:
        """The body of the request.

        Raises:
            ApplicationError: `BudgetReached`; nothing is asked of the model.
        """
        if prompt.budget_used_up:
            raise ApplicationError(prompt.budget_used_up, type=BUDGET_REACHED, non_retryable=True)
        settings = self._settings
        chat = [
            system_message(settings.system_prompt, prompt.system_context),
            *openai_messages(prompt.rows, tool_result_max=settings.tool_result_max_chars),
        ]
        return request_body(
            settings,
            model=call.model,
            mode=call.mode,
            messages=fit(chat, int(settings.context_window * settings.context_share)),
            tools=self._tools.schemas(call.scope),
        )

    async def _stream(
        self, call: CallModel, state: CallState, request: dict[str, Any], assembler: Assembler, step: StepWriter
    ) -> Completion:
        """Receive the answer and publish it as it arrives; the step stays open until the answer is stored."""
        started = time.monotonic()
        complete = False
        step.begin()
        try:
            async with aclosing(
                self._model_client.stream(request, call_key=f"{call.turn.turn_id}:{call.round}")
            ) as chunks:
                async for chunk in chunks:
                    show(step, assembler.feed(chunk))
            if not assembler.ended:
                raise StreamBrokenError("The model's stream ended before its end.")
            complete = True
        except asyncio.CancelledError:
            show(step, assembler.rest())
            complete = await self._cancelled(call, assembler.completion(_milliseconds_since(started)), step)
            raise
        except (OpenAIError, StreamBrokenError) as error:
            raise self._failure(error, state) from error
        finally:
            if not complete:
                step.abandon()
        completion = assembler.completion(_milliseconds_since(started))
        return completion.model_copy(update={"usage": priced(completion.model or call.model, completion.usage)})

    async def _cancelled(self, call: CallModel, partial: Completion, step: StepWriter) -> bool:
        """Keep what has been shown when Stop was pressed. After a shutdown or time-out another attempt makes the call.

        Returns:
            Whether the partial answer stays.
        """
        if not stop_requested():
            if activity.is_worker_shutdown():
                raise handed_over()
            return False
        if rows := partial_rows(call, partial):
            with storage_faults():
                async with self._database.write() as connection:
                    await messages.append(connection, call.turn.session_id, rows)
        step.end(keep_open=False)
        return True

    def _failure(self, error: OpenAIError | StreamBrokenError, state: CallState) -> ApplicationError:
        """The failure that makes Temporal retry after the right wait, or that ends the turn."""
        failure = classify(error)
        tries = state.tries + 1
        checkpoint(CallState(tries=tries))
        if not failure.retryable or tries >= self._settings.model_tries:
            suffix = f" Tried {tries} times." if tries > 1 else ""
            return ApplicationError(failure.text + suffix, type=MODEL_FAILED, non_retryable=True)
        delay = backoff(self._settings, tries, failure.retry_after)
        return ApplicationError(failure.text, type=MODEL_RETRY, next_retry_delay=timedelta(seconds=delay))

    async def _store(self, call: CallModel, completion: Completion) -> StoredAnswer:
        """Store an answer, also when Stop arrives meanwhile: it has been paid for and shown."""

        async def store() -> StoredAnswer:
            async with self._database.write() as connection:
                return await store_answer(connection, call, completion)

        storing = asyncio.create_task(when_storage_is_back(store, self._settings.storage_window))
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:
            if stop_requested():
                await storing
                raise
            storing.cancel()
            if activity.is_worker_shutdown():
                raise handed_over() from None
            raise

    def _report(self, answer: StoredAnswer, *, published: bool) -> ModelAnswer:
        """What the workflow decides on. Arguments leave the database only for tools that the workflow itself runs."""
        calls = [(made["id"], made["function"]["name"], made["function"]["arguments"]) for made in answer.tool_calls]
        return ModelAnswer(
            message_id=answer.message_id,
            finish_reason=answer.finish_reason,
            has_text=bool(answer.text.strip()),
            tool_calls=[
                ToolCall(
                    tool_call_id=call_id,
                    name=name,
                    arguments=arguments if name in WORKFLOW_TOOLS else None,
                    quick=self._tools.is_quick(name),
                )
                for call_id, name, arguments in calls
            ],
            usage=answer.usage,
            published=published,
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


def partial_rows(call: CallModel, completion: Completion) -> list[NewMessage]:
    """The rows of an answer that was cut off: its text, without tool calls, which may be incomplete."""
    if not completion.text and not completion.reasoning:
        return []
    cut = completion.model_copy(update={"tool_calls": [], "finish_reason": "cancelled"})
    return answer_rows(call, cut, "partial")


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


def show(step: StepWriter, pieces: list[Piece]) -> None:
    """Publish the pieces of a chunk."""
    for kind, piece, more in pieces:
        match kind:
            case "text":
                step.text(piece)
            case "reasoning":
                step.reasoning(piece)
            case "tool":
                step.tool_start(piece, more)
            case "arguments":
                step.tool_delta(piece, more)


def end_step(step: StepWriter, answer: StoredAnswer) -> None:
    """End the step of an answer that has been streamed; if another answer counts, show that one instead."""
    if not answer.is_ours:
        step.abandon()
        show_again(step, answer)
        return
    announce_calls(step, answer)
    step.end(keep_open=bool(answer.tool_calls))


def show_again(step: StepWriter, answer: StoredAnswer) -> None:
    """Publish a stored answer as a step of its own."""
    step.begin()
    if answer.text:
        step.text(answer.text)
    announce_calls(step, answer)
    step.end(keep_open=bool(answer.tool_calls))


def announce_calls(step: StepWriter, answer: StoredAnswer) -> None:
    for made in answer.tool_calls:
        step.tool_available(made["id"], made["function"]["name"], made["function"]["arguments"])


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
