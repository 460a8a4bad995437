"""The model call: load the context, stream the answer to whoever watches, store it, say what to decide on."""

import asyncio
import time
from contextlib import aclosing
from datetime import timedelta

from openai import OpenAIError
from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import budgets
from activities.deps import Deps, handed_over, stop_requested, storage_faults
from activities.heartbeat import checkpoint
from activities.rows import Stored, answer_from_row, partial_rows, store_answer
from activities.title import TitleCall
from longhaul.contracts import CallModel, ModelAnswer
from longhaul.db import conversation, messages, sessions
from longhaul.db.messages import StoredMessage
from longhaul.errors import BUDGET_REACHED, MODEL_FAILED, MODEL_RETRY, STORAGE_UNAVAILABLE, StreamBrokenError
from longhaul.llm.completion import Assembler, Completion, Piece, priced
from longhaul.llm.failures import backoff, classify
from longhaul.llm.request import fit, openai_messages, request_body, system_message
from longhaul.streams.events import data_part
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.step_writer import StepWriter, leftovers

STORE_AGAIN_S, STORE_AGAIN_MAX_S = 0.2, 5.0


class CallState(BaseModel):
    """Checkpoint of a model call: failed tries so far, and the finished answer while it is not stored yet."""

    tries: int = 0
    completion: Completion | None = None


class ModelActivities:
    """Calls the model."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    @activity.defn
    async def call_model(self, call: CallModel) -> ModelAnswer:
        """One round's model call, stored before it returns.

        Raises:
            ApplicationError: `ModelTryFailed` (tried again), `ModelFailed` (the turn fails), `StorageUnavailable`,
                `HandedOver`.
        """
        details = activity.info().heartbeat_details
        state = CallState.model_validate(details[0]) if details else CallState()
        async with self._deps.publisher(call.turn) as publisher:
            answer = await self._answer(call, state, publisher)
        tools = self._deps.tools
        calls = [made.model_copy(update={"quick": tools.is_quick(made.name)}) for made in answer.tool_calls]
        return answer.model_copy(update={"published": not publisher.broken, "tool_calls": calls})

    async def _answer(self, call: CallModel, state: CallState, publisher: StreamPublisher) -> ModelAnswer:
        deps = self._deps
        writer = StepWriter(publisher, call.round, activity.info().attempt)
        if state.completion is not None:
            stored = await self._store(call, state.completion)
            await self._end_again(call, publisher)
            return stored.answer
        with storage_faults():
            async with deps.db.read() as connection:
                session = await sessions.get(connection, call.turn.session_id)
                rows = await conversation.for_model(connection, call.turn.session_id)
                used_up = await budgets.reached(connection, call.turn.session_id, call.scope)
        own_row = messages.row_id(call.turn.turn_id, call.round, "assistant")
        if done := next((row for row in reversed(rows) if row.id == own_row), None):
            # An earlier try stored its answer and died before it could say so.
            await self._end_again(call, publisher)
            return answer_from_row(done)
        if used_up:
            raise ApplicationError(used_up, type=BUDGET_REACHED, non_retryable=True)
        if activity.info().attempt > 1:
            for part in leftovers(await publisher.since_step(), call.round):
                publisher.put(part)
        elif call.step_open:
            publisher.put({"type": "finish-step"})
        prompt = [
            system_message(deps.settings.system_prompt, session.system_context),
            *openai_messages(rows, tool_result_max=deps.settings.tool_result_max_chars),
        ]
        body = request_body(
            deps.settings,
            model=call.model,
            mode=call.mode,
            messages=fit(prompt, int(deps.settings.context_window * deps.settings.context_share)),
            tools=deps.tools.schemas(call.scope),
        )
        async with TitleCall(deps, call, publisher, wanted=call.title_wanted and not session.title) as title:
            title.start(rows)
            made_before = (
                made["id"] for row in rows if row.turn_id == call.turn.turn_id for made in row.tool_calls or ()
            )
            completion = await self._stream(call, state, body, Assembler(made_before), writer)
            checkpoint(CallState(tries=state.tries, completion=completion))
            stored = await self._store(call, completion)
        if not stored.as_given:
            # An earlier try, taken for dead, has come back and was faster: what it stored is what was said.
            writer.abandon()
            await self._say_again(call, writer)
            return stored.answer
        for made in completion.tool_calls:
            writer.tool_available(made.id, made.name, made.arguments)
        writer.end(keep_open=bool(completion.tool_calls))
        publisher.put(data_part("usage", completion.usage.model_dump()))
        return stored.answer

    async def _stream(
        self, call: CallModel, state: CallState, body: dict[str, object], assembler: Assembler, writer: StepWriter
    ) -> Completion:
        started = time.monotonic()
        kept = False
        writer.begin()
        try:
            chunks = self._deps.model.stream(body, call_key=f"{call.turn.turn_id}:{call.round}")
            async with aclosing(chunks):
                async for chunk in chunks:
                    show(writer, assembler.feed(chunk))
            if not assembler.ended:
                raise StreamBrokenError("The model's stream ended before its end.")
            kept = True
        except asyncio.CancelledError:
            show(writer, assembler.rest())
            kept = await self._cancelled(call, assembler.completion(_milliseconds_since(started)), writer)
            raise
        except (OpenAIError, StreamBrokenError) as error:
            raise self._failed(error, state) from error
        finally:
            if not kept:
                writer.abandon()
        found = assembler.completion(_milliseconds_since(started))
        return found.model_copy(update={"usage": priced(found.model or call.model, found.usage)})

    async def _cancelled(self, call: CallModel, partial: Completion, writer: StepWriter) -> bool:
        """Stop was pressed: keep what came. A shutdown or a time-out: somebody else makes the call again."""
        if not stop_requested():
            if activity.is_worker_shutdown():
                raise handed_over()
            return False
        if rows := partial_rows(call, partial):
            with storage_faults():
                async with self._deps.db.write() as connection:
                    await messages.append(connection, call.turn.session_id, rows)
        writer.end(keep_open=False)
        return True

    async def _store(self, call: CallModel, completion: Completion) -> Stored:
        """Store an answer, also when Stop comes meanwhile: it has been paid for and shown."""
        storing = asyncio.create_task(self._store_when_possible(call, completion))
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

    async def _store_when_possible(self, call: CallModel, completion: Completion) -> Stored:
        """Wait here while the database is away: an answer too large for a checkpoint would be lost by a new attempt."""
        patience = time.monotonic() + self._deps.settings.storage_window
        pause = STORE_AGAIN_S
        while True:
            try:
                with storage_faults():
                    async with self._deps.db.write() as connection:
                        return await store_answer(connection, call, completion)
            except ApplicationError as error:
                if error.type != STORAGE_UNAVAILABLE or time.monotonic() > patience:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, STORE_AGAIN_MAX_S)

    async def _end_again(self, call: CallModel, publisher: StreamPublisher) -> None:
        """The answer is stored, but a try died before it had ended its step in the stream: show the whole once more."""
        parts = await publisher.since_step()
        answer = await self._stored_row(call)
        calls = {made["id"] for made in answer.tool_calls or ()}
        available = {part["toolCallId"] for part in parts if part["type"] == "tool-input-available"}
        if any(part["type"] == "finish-step" for part in parts) or (calls and available >= calls):
            return
        for part in leftovers(parts, call.round):
            publisher.put(part)
        await self._say_again(call, StepWriter(publisher, call.round, activity.info().attempt))

    async def _say_again(self, call: CallModel, writer: StepWriter) -> None:
        """The stored answer as a step of its own."""
        answer = await self._stored_row(call)
        writer.begin()
        if answer.content:
            writer.text(answer.content)
        for made in answer.tool_calls or ():
            writer.tool_available(made["id"], made["function"]["name"], made["function"]["arguments"])
        writer.end(keep_open=bool(answer.tool_calls))

    async def _stored_row(self, call: CallModel) -> StoredMessage:
        with storage_faults():
            async with self._deps.db.read() as connection:
                rows = await conversation.rows_of_round(connection, call.turn.turn_id, call.round)
        return next(row for row in rows if row.role == "assistant")

    def _failed(self, error: OpenAIError | StreamBrokenError, state: CallState) -> ApplicationError:
        """The failure that makes Temporal try again after the right wait, or ends the turn."""
        failure = classify(error)
        tries = state.tries + 1
        checkpoint(CallState(tries=tries))
        if not failure.retryable or tries >= self._deps.settings.model_tries:
            suffix = f" Tried {tries} times." if tries > 1 else ""
            return ApplicationError(failure.text + suffix, type=MODEL_FAILED, non_retryable=True)
        delay = backoff(self._deps.settings, tries, failure.retry_after)
        return ApplicationError(failure.text, type=MODEL_RETRY, next_retry_delay=timedelta(seconds=delay))


def show(writer: StepWriter, pieces: list[Piece]) -> None:
    """Stream what a chunk brought."""
    for kind, piece, more in pieces:
        match kind:
            case "text":
                writer.text(piece)
            case "reasoning":
                writer.reasoning(piece)
            case "tool":
                writer.tool_start(piece, more)
            case "arguments":
                writer.tool_delta(piece, more)


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
