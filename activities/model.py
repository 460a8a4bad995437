"""The model call of a round: recover an earlier attempt's answer, or request, stream and store one; report it."""

import asyncio
import logging
import time
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from openai import OpenAIError
from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.answers import (
    CUT_OFF,
    STOPPED,
    Prompt,
    StoredAnswer,
    append_to_turn,
    load_prompt,
    partial_rows,
    store_answer,
)
from activities.asking import Asking
from activities.attempt import (
    TurnStreams,
    checkpoint,
    handed_over,
    last_checkpoint,
    stop_requested,
    storage_faults,
    stored_despite_stop,
)
from longhaul.contracts import CallModel, ModelAnswer, ToolCall, TurnStatus
from longhaul.db import conversation
from longhaul.db.database import Database
from longhaul.errors import (
    BUDGET_REACHED,
    MODEL_FAILED,
    MODEL_RETRY,
    ContextTooLongError,
    StreamBrokenError,
    new_reference,
)
from longhaul.llm.client import ModelClient
from longhaul.llm.compaction import compaction_due
from longhaul.llm.completion import Assembler, Completion, priced
from longhaul.llm.failures import ModelFailure, classify, retry_delay
from longhaul.llm.request import Request, request_for, room
from longhaul.settings import Settings
from longhaul.streams.ending import Ending, end_stream
from longhaul.streams.events import data_part
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.step_writer import StepWriter, closing_parts, shows_answer
from longhaul.tools import Registry
from longhaul.tools.workflow_tools import for_workflow

log = logging.getLogger(__name__)
PARTIAL_MAX_CHARS = 200_000


class CallState(BaseModel):
    """Checkpoint of a model call: the finished answer until it is stored; until then, what the failed attempts left.

    `failing_since`: when the first attempt failed, in seconds since the epoch. `partial`: the newest text that was
    shown and cut off.
    """

    failures: int = 0
    failing_since: float | None = None
    partial: Completion | None = None
    completion: Completion | None = None

    def after_failure(self, received: Completion) -> "CallState":
        """The state after one more failed attempt, which had received so much."""
        kept = 0 < len(received.text) + len(received.reasoning) <= PARTIAL_MAX_CHARS
        return CallState(
            failures=self.failures + 1,
            failing_since=self.failing_since or time.time(),
            partial=received.model_copy(update={"tool_calls": []}) if kept else self.partial,
        )


@dataclass(frozen=True)
class Attempt:
    """One attempt at a model call: the earlier attempts' checkpoint, and where this one shows its answer."""

    call: CallModel
    state: CallState
    publisher: StreamPublisher
    step: StepWriter


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
        async with self._streams.publisher(call.turn) as publisher:
            step = StepWriter(publisher.put, call.round, activity.info().attempt)
            attempt = Attempt(call, last_checkpoint(CallState) or CallState(), publisher, step)
            with storage_faults():
                async with self._database.read() as connection:
                    prompt = await load_prompt(connection, call)
            answer = await self._earlier_answer(attempt, prompt)
            await self._clear_stream(attempt, answer)
            if answer is None:
                completion = await self._stream(attempt, prompt, Assembler(prompt.call_ids))
                checkpoint(CallState(completion=completion))
                answer = await self._store(call, completion)
                if answer.is_ours:
                    step.complete(answer.tool_calls)
                else:
                    step.take_back()
                    step.show_stored(answer.text, answer.tool_calls)
                publisher.put(data_part("usage", answer.usage.model_dump()))
            if answer.turn_ended_at is not None:
                await self._end_stream(call, publisher)
        return self._report(answer, published=not publisher.broken)

    async def _earlier_answer(self, attempt: Attempt, prompt: Prompt) -> StoredAnswer | None:
        """The answer that an earlier attempt has paid for, from its checkpoint or its row; None if there is none.

        Raises:
            ApplicationError: `ModelFailed`; an earlier attempt had no retry left and stored the text that was cut off.
        """
        if attempt.state.completion is not None:
            return await self._store(attempt.call, attempt.state.completion)
        if prompt.stored is not None and prompt.stored.is_partial:
            raise ApplicationError("The model's answer was cut off.", type=MODEL_FAILED, non_retryable=True)
        return prompt.stored

    async def _clear_stream(self, attempt: Attempt, answer: StoredAnswer | None) -> None:
        """Close the step that an earlier round or attempt left open, and show the `answer` if it is not shown."""
        call, publisher = attempt.call, attempt.publisher
        if answer is None and activity.info().attempt == 1:
            if call.step_open:
                publisher.put({"type": "finish-step"})
            return
        parts = await publisher.open_step()
        if answer is not None and shows_answer(parts, call.round, [made["id"] for made in answer.tool_calls]):
            return
        for part in closing_parts(parts, call.round):
            publisher.put(part)
        if answer is not None:
            attempt.step.show_stored(answer.text, answer.tool_calls)

    def _request(self, call: CallModel, prompt: Prompt, max_tokens: float) -> Request:
        return request_for(
            self._settings,
            model=call.model,
            mode=call.mode,
            about=prompt.about,
            rows=prompt.rows,
            tools=self._tools.schemas(call.scope),
            max_tokens=max_tokens,
        )

    async def _stream(self, attempt: Attempt, prompt: Prompt, assembler: Assembler) -> Completion:
        """Receive the answer and publish it as it arrives; the step stays open until the answer is stored.

        Raises:
            ApplicationError: `BudgetReached`; nothing is asked of the model.
        """
        if prompt.budget_used_up:
            raise ApplicationError(prompt.budget_used_up, type=BUDGET_REACHED, non_retryable=True)
        call, step = attempt.call, attempt.step
        asking = Asking(self._model_client, self._settings, room(self._settings, prompt.token_scale))
        asked = asking.chunks(partial(self._request, call, prompt), f"{call.turn.turn_id}:{call.round}")
        started = time.monotonic()
        step_settled = False
        step.begin()
        try:
            async with aclosing(asked) as chunks:
                async for chunk in chunks:
                    step.show(assembler.feed(chunk))
            if not assembler.ended:
                raise StreamBrokenError("The model's stream ended before its end.")
            step_settled = True
        except asyncio.CancelledError:
            step.show(assembler.rest())
            step_settled = await self._cancelled(attempt, assembler.completion(_milliseconds_since(started)))
            raise
        except (OpenAIError, StreamBrokenError, ContextTooLongError) as error:
            step.show(assembler.rest())
            received = assembler.completion(_milliseconds_since(started))
            step_settled = True
            raise await self._failed(attempt, classify(error), received) from None
        finally:
            if not step_settled:
                step.take_back()
        completion = assembler.completion(_milliseconds_since(started))
        usage = priced(completion.model or call.model, completion.usage)
        tokens = usage.prompt_tokens or round(asking.estimated_tokens * (prompt.token_scale or 1))
        # A request that had to be shortened shows less than people and tools have said: a summary shows more.
        due = asking.shortened or compaction_due(self._settings, len(prompt.rows), tokens + usage.completion_tokens)
        return completion.model_copy(
            update={"usage": usage, "estimated_tokens": asking.estimated_tokens, "compaction_due": due}
        )

    async def _cancelled(self, attempt: Attempt, received: Completion) -> bool:
        """Keep what has been shown when Stop was pressed. After a shutdown or time-out another attempt makes the call.

        Returns:
            Whether the text stays.
        """
        if not stop_requested():
            if activity.is_worker_shutdown():
                raise handed_over()
            return False
        await self._store_partial(attempt.call, received, STOPPED)
        attempt.step.end(keep_open=False)
        return True

    async def _failed(self, attempt: Attempt, failure: ModelFailure, received: Completion) -> ApplicationError:
        """The failure that makes Temporal retry after the right wait, or that ends the turn when no retry is left.

        A retried attempt's text is taken back. When no retry is left, the newest text stays, marked as cut off.
        """
        text = failure.text
        if failure.detail:
            reference = new_reference()
            log.warning("model call failed, reference %s: %s", reference, failure.detail)
            text += f" Reference: {reference}."
        state = attempt.state.after_failure(received)
        failing_for = time.time() - (state.failing_since or time.time())
        delay = retry_delay(self._settings, failure, state.failures, failing_for)
        if delay is not None:
            checkpoint(state)
            attempt.step.take_back()
            retrying = {
                "round": attempt.call.round,
                "status": "running",
                "retrying_in": round(delay, 2),
                "reason": text,
            }
            attempt.publisher.put(data_part("progress", retrying, transient=True))
            return ApplicationError(text, type=MODEL_RETRY, next_retry_delay=timedelta(seconds=delay))
        if state.failures > 1:
            text += f" Tried {state.failures} times."
        await self._give_up(attempt, received, state.partial)
        return ApplicationError(text, type=MODEL_FAILED, non_retryable=True)

    async def _give_up(self, attempt: Attempt, received: Completion, earlier: Completion | None) -> None:
        """Keep the text of the last attempt, or show and keep that of an earlier one."""
        step = attempt.step
        if not (received.text or received.reasoning):
            if earlier is None:
                step.take_back()
                return
            step.show([("reasoning", earlier.reasoning, ""), ("text", earlier.text, "")])
            received = earlier
        step.close_block()  # `close_turn` ends the step, with results for the tool calls that were announced in it
        await self._store_partial(attempt.call, received, CUT_OFF)

    async def _store(self, call: CallModel, completion: Completion) -> StoredAnswer:
        """Store an answer, also when Stop arrives meanwhile: it has been paid for and shown."""

        async def store() -> StoredAnswer:
            async with self._database.write() as connection:
                return await store_answer(connection, call, completion, may_end_turn=not stop_requested())

        return await stored_despite_stop(
            store, self._settings.storage_window, keep=lambda answer: answer.turn_ended_at is not None
        )

    async def _store_partial(self, call: CallModel, received: Completion, reason: str) -> None:
        if not (rows := partial_rows(call, received, reason)):
            return

        async def store() -> None:
            async with self._database.write() as connection:
                await append_to_turn(connection, call.turn, rows)

        await stored_despite_stop(store, self._settings.storage_window)

    async def _end_stream(self, call: CallModel, publisher: StreamPublisher) -> None:
        """Seal the stream. A second attempt first compares it with the rows."""
        rows = None
        if activity.info().attempt > 1 and call.turn.published:
            with storage_faults():
                async with self._database.read() as connection:
                    rows = await conversation.rows_of_turn(connection, call.turn.turn_id)
        await end_stream(publisher, Ending(TurnStatus.COMPLETED, call.round, None), rows, self._settings.stream_ttl)

    def _report(self, answer: StoredAnswer, *, published: bool) -> ModelAnswer:
        """What the workflow decides on; the answer's texts stay in the database."""
        calls = [(made["id"], made["function"]["name"], made["function"]["arguments"]) for made in answer.tool_calls]
        return ModelAnswer(
            message_id=answer.message_id,
            finish_reason=answer.finish_reason,
            has_text=bool(answer.text.strip()),
            tool_calls=[
                for_workflow(ToolCall(tool_call_id=call_id, name=name, quick=self._tools.is_quick(name)), arguments)
                for call_id, name, arguments in calls
            ],
            usage=answer.usage,
            published=published,
            turn_ended_at=answer.turn_ended_at,
            compaction_due=answer.compaction_due,
        )


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
