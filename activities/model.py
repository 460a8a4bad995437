"""The model call of a round: recover an earlier attempt's answer, or request, stream and store one; report it."""

import asyncio
import logging
import random
import time
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from functools import partial

from openai import OpenAIError
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

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
from activities.costs import Costs, paid_call
from activities.images import images_for
from activities.model_attempt import Attempt, CallState
from activities.model_report import AnswerReport
from longhaul.contracts import CallModel, ModelAnswer, TurnStatus
from longhaul.db import conversation, ledger
from longhaul.db.database import Database
from longhaul.db.ledger import PaidCall
from longhaul.errors import (
    BUDGET_REACHED,
    BUDGET_RESERVED,
    MODEL_FAILED,
    MODEL_RETRY,
    ContextTooLongError,
    NotFoundError,
    StreamBrokenError,
    TurnEndedError,
    new_reference,
)
from longhaul.files.store import FileStore
from longhaul.llm.client import ModelClient
from longhaul.llm.compaction import compaction_due
from longhaul.llm.completion import Assembler, Completion
from longhaul.llm.estimate import Estimate
from longhaul.llm.failures import ModelFailure, classify, retry_delay, took_too_long
from longhaul.llm.models import model_info
from longhaul.llm.outages import Outages
from longhaul.llm.request import Request, effort_of, request_for, room, with_answer_limit
from longhaul.llm.tokens import scale_from
from longhaul.settings import Settings
from longhaul.streams.blocks import pieces_of
from longhaul.streams.ending import Ending, end_stream
from longhaul.streams.events import Part, data_part, usage_part
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.step_writer import CutOff, StepWriter, closing_parts, cut_off_attempt, shows_answer
from longhaul.tools import Registry
from longhaul.tools.approval import ApprovalRules
from longhaul.tools.client_tools import schemas_with

log = logging.getLogger(__name__)
#: Seconds until another model is asked. Temporal takes 0 for "as its policy says".
FALLBACK_S = 0.1
OUTAGES = "longhaul_model_outages"
#: Waits of a call that needs what running calls have reserved of its budget.
RESERVED_PAUSE_S, RESERVED_PAUSE_FACTOR, RESERVED_PAUSE_MAX_S = 0.2, 1.5, 5.0


class ModelActivities:
    """Calls the model."""

    def __init__(
        self,
        database: Database,
        streams: TurnStreams,
        model_client: ModelClient,
        tools: Registry,
        files: FileStore,
        settings: Settings,
    ) -> None:
        self._files = files
        self._database = database
        self._streams = streams
        self._model_client = model_client
        self._tools = tools
        self._report = AnswerReport(tools, ApprovalRules(settings.approve))
        self._settings = settings
        self._costs = Costs(database)
        self._scales: dict[str, float] = {}
        self._outages = Outages(settings.model_down_seconds)

    @activity.defn
    async def call_model(self, call: CallModel) -> ModelAnswer:
        """The answer of one round, stored before this returns.

        Raises:
            ApplicationError: `ModelTryFailed`, `BudgetReserved` (Temporal retries), `ModelFailed`, `BudgetReached` (the
                turn fails), `StorageUnavailable`, `HandedOver`.
        """
        number = activity.info().attempt
        async with self._streams.publisher(call.turn) as publisher:
            step = StepWriter(publisher.put, call.round, number)
            reserves = bool(ledger.money_budgets(call.turn.session_id, call.scope))
            state = last_checkpoint(CallState) or CallState()
            models = self._models(call, state)
            attempt = Attempt(call, models, state, publisher, step, paid_call(call, number, models[0]), reserves)
            with storage_faults():
                async with self._database.read() as connection:
                    speaks_responses = self._settings.model_api != "chat"
                    prompt = await load_prompt(connection, call, attempt.model if speaks_responses else "")
            answer = await self._earlier_answer(attempt, prompt)
            cut_off = await self._clear_stream(attempt, answer)
            if answer is None:
                images = await images_for(self._settings, self._files, attempt.model, prompt.rows)
                prompt = replace(prompt, images=images)
                window = model_info(self._settings, attempt.model).window
                share = self._settings.context_share
                request = self._request(attempt, prompt, room(window, share, prompt.token_scale))
                await self._reserve(attempt, prompt, request, cut_off)
                completion = await self._stream(attempt, prompt, request)
                checkpoint(CallState(model=attempt.model, completion=completion, received_by=number))
                answer = await self._store(call, completion, attempt.paid)
                if answer.is_ours:
                    step.complete(answer.tool_calls)
                else:
                    step.take_back()
                    step.show_stored(answer.blocks, answer.tool_calls)
            publisher.put(usage_part(answer.usage.model_dump(), answer.model))
            if answer.turn_ended_at is not None:
                await self._end_stream(call, publisher)
        return self._report.of(
            call, answer, prompt.client_tools, attempt.answered_by_fallback, published=not publisher.broken
        )

    def _models(self, call: CallModel, state: CallState) -> list[str]:
        """The models that are left to be asked: from the one that the checkpoint or the turn's newest call names.

        A model that was found to be down is left out, unless all are.
        """
        models = self._settings.models_for(call.model, call.tier)
        first = state.model or call.fallback
        models = models[models.index(first) :] if first in models else models
        return models if state.completion is not None else self._outages.to_ask(models)

    async def _earlier_answer(self, attempt: Attempt, prompt: Prompt) -> StoredAnswer | None:
        """The answer that an earlier attempt has paid for, from its checkpoint or its row; None if there is none.

        Raises:
            ApplicationError: `ModelFailed`; an earlier attempt had no retry left and stored the text that was cut off.
        """
        if attempt.state.completion is not None:
            paid = paid_call(attempt.call, attempt.state.received_by, attempt.model)
            return await self._store(attempt.call, attempt.state.completion, paid)
        if prompt.stored is not None and prompt.stored.is_partial:
            raise ApplicationError("The model's answer was cut off.", type=MODEL_FAILED, non_retryable=True)
        return prompt.stored

    async def _clear_stream(self, attempt: Attempt, answer: StoredAnswer | None) -> CutOff | None:
        """Close the step that an earlier round or attempt left open, and show the `answer` if it is not shown.

        Returns:
            What an earlier attempt had shown when its worker died; None if there was no such attempt.
        """
        call, publisher = attempt.call, attempt.publisher
        if answer is None and activity.info().attempt == 1:
            if call.step_open:
                publisher.put({"type": "finish-step"})
            return None
        parts = await publisher.open_step()
        if answer is not None and shows_answer(parts, call.round, [made["id"] for made in answer.tool_calls]):
            return None
        for part in closing_parts(parts, call.round):
            publisher.put(part)
        if answer is not None:
            attempt.step.show_stored(answer.blocks, answer.tool_calls)
        return cut_off_attempt(parts, call.round)

    def _request(self, attempt: Attempt, prompt: Prompt, max_tokens: float) -> Request:
        """The request of at most `max_tokens`. A budget can only be kept if the answer has a limit too."""
        call = attempt.call
        request = request_for(
            self._settings,
            model=attempt.model,
            effort=effort_of(self._settings, call.mode, call.effort),
            about=prompt.about,
            rows=prompt.rows,
            tools=schemas_with(self._tools.schemas(call.scope), prompt.client_tools),
            max_tokens=max_tokens,
            images=prompt.images,
            encrypted=prompt.encrypted,
        )
        if not attempt.reserves:
            return request
        return request._replace(body=with_answer_limit(request.body, self._settings.budget_answer_tokens))

    def _estimate(self, request: Request, prompt: Prompt) -> Estimate:
        """Estimates for a request: by the session's own calibration, else by that of the model's newest call here."""
        scale = prompt.token_scale or self._scales.get(request.body["model"])
        return Estimate(request, scale, self._settings.prompt_cache_ttl)

    async def _reserve(self, attempt: Attempt, prompt: Prompt, request: Request, cut_off: CutOff | None) -> None:
        """Reserve what the call may cost, if a budget limits it. An attempt that was cut off is booked first.

        Raises:
            ApplicationError: `BudgetReached`; nothing is asked of the model. `BudgetReserved`: running calls hold what
                is left of a budget. Temporal tries again, without holding a slot of the worker meanwhile.
        """
        call, settings = attempt.call, self._settings
        estimate = self._estimate(request, prompt)
        with storage_faults():
            if cut_off is not None:
                earlier = paid_call(call, cut_off.attempt or attempt.paid.attempt - 1, attempt.model)
                usage = estimate.usage(Completion(text=cut_off.text))
                await self._costs.book(earlier, Completion(usage=usage, is_estimated=True))
            if not attempt.reserves:
                return
            lifetime_s = settings.model_max_seconds + settings.storage_window
            refusal = await self._costs.reserve(attempt.paid, call.scope, estimate, lifetime_s)
        if refusal is None:
            return
        waiting_since = attempt.state.waiting_since or time.time()
        if refusal.for_good or time.time() - waiting_since > settings.model_max_seconds:
            raise ApplicationError(refusal.text, type=BUDGET_REACHED, non_retryable=True)
        waits = attempt.state.waits + 1
        checkpoint(attempt.state.model_copy(update={"waits": waits, "waiting_since": waiting_since}))
        delay = min(RESERVED_PAUSE_S * RESERVED_PAUSE_FACTOR ** min(waits, 20), RESERVED_PAUSE_MAX_S)
        delay *= random.uniform(0.75, 1.25)  # noqa: S311  # not a secret
        attempt.publisher.put(_retrying(call, delay, refusal.text))
        raise ApplicationError(
            refusal.text,
            type=BUDGET_RESERVED,
            next_retry_delay=timedelta(seconds=delay),
            category=ApplicationErrorCategory.BENIGN,
        )

    async def _stream(self, attempt: Attempt, prompt: Prompt, request: Request) -> Completion:
        """Receive the answer and publish it as it arrives; the step stays open until the answer is stored."""
        call, step, assembler = attempt.call, attempt.step, Assembler(prompt.call_ids)
        asking = Asking(self._model_client, self._settings, request)
        asked = asking.chunks(partial(self._request, attempt, prompt), f"{call.turn.turn_id}:{call.round}")
        started, asked_at = time.monotonic(), time.time()
        seconds_left = (attempt.state.asking_since or asked_at) + self._settings.model_max_seconds - asked_at
        step_settled = False

        def received() -> Completion:
            completion = assembler.completion(_milliseconds_since(started))
            return self._estimate(asking.request, prompt).completed(completion)

        step.begin()
        try:
            async with asyncio.timeout(max(seconds_left, 0)) as limit, aclosing(asked) as chunks:
                async for chunk in chunks:
                    step.show(assembler.feed(chunk))
            if not assembler.ended:
                raise StreamBrokenError("The model's stream ended before its end.")
            step_settled = True
        except asyncio.CancelledError:
            step.show(assembler.rest())
            step_settled = await self._cancelled(attempt, received())
            raise
        except (OpenAIError, StreamBrokenError, ContextTooLongError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not limit.expired():
                raise
            step.show(assembler.rest())
            step_settled = True
            failure = classify(error) if not isinstance(error, TimeoutError) else took_too_long(self._settings)
            raise await self._failed(attempt, failure, received(), asked_at) from None
        finally:
            if not step_settled:
                step.take_back()
        self._outages.answered(attempt.model)
        completion = received()
        scale = scale_from(completion.estimated_tokens, completion.usage.prompt_tokens)
        if scale is not None and not completion.is_estimated:
            self._scales[attempt.model] = scale
        # A request that had to be shortened shows less than people and tools have said: a summary shows more.
        tokens = completion.usage.prompt_tokens + completion.usage.completion_tokens
        window, share = asking.request.model.window, self._settings.context_share
        due = asking.request.shortened or compaction_due(window, share, len(prompt.rows), tokens)
        return completion.model_copy(update={"compaction_due": due})

    async def _cancelled(self, attempt: Attempt, received: Completion) -> bool:
        """Keep what has been shown when Stop was pressed. After a shutdown or time-out another attempt makes the call.

        Returns:
            Whether the text stays.
        """
        if not stop_requested():
            await self._settle(attempt, received, patience_s=0)
            if activity.is_worker_shutdown():
                raise handed_over()
            return False
        await self._settle(attempt, received, self._settings.storage_window)
        await self._store_partial(attempt, received, STOPPED)
        attempt.step.end(keep_open=False)
        return True

    async def _failed(
        self, attempt: Attempt, failure: ModelFailure, received: Completion, asked_at: float
    ) -> ApplicationError:
        """The failure that makes Temporal retry after the right wait, or that ends the turn when no retry is left.

        When the retries of a model are used up, or it refuses the request, the next attempt asks the next model. What
        the attempt may have cost is booked. A retried attempt's text is taken back. When no retry and no model is left,
        the newest text stays, marked as cut off.
        """
        await self._settle(attempt, received if failure.billed else None, self._settings.storage_window)
        text = failure.text
        if failure.detail:
            reference = new_reference()
            log.warning("model call failed, reference %s: %s", reference, failure.detail)
            text += f" Reference: {reference}."
        state = attempt.state.after_failure(received, asked_at)
        failing_for = time.time() - (state.failing_since or time.time())
        patience_s = self._settings.model_retry_seconds
        if attempt.fallback:
            was_down = self._outages.is_down(attempt.model)
            patience_s = 0 if was_down else min(patience_s, self._settings.model_fallback_after)
        delay = retry_delay(self._settings, failure, state.failures, failing_for, patience_s)
        if delay is None and attempt.fallback and not failure.of_endpoint:
            delay = FALLBACK_S
            if failure.retryable:  # otherwise this request was refused, and another may be taken
                self._note_outage(attempt.model, attempt.fallback)
            state = state.with_fallback(attempt.model, attempt.fallback)
            text += f" {attempt.fallback} is asked instead of {attempt.model}."
        if delay is not None:
            checkpoint(state)
            attempt.step.take_back()
            attempt.publisher.put(_retrying(attempt.call, delay, text))
            return ApplicationError(text, type=MODEL_RETRY, next_retry_delay=timedelta(seconds=delay))
        if state.failures > 1:
            text += f" Tried {state.failures} times."
        if state.exhausted:
            text += f" Other models failed before: {', '.join(state.exhausted)}."
        await self._give_up(attempt, received, state.partial)
        return ApplicationError(text, type=MODEL_FAILED, non_retryable=True)

    def _note_outage(self, model: str, fallback: str) -> None:
        self._outages.failed(model, fallback)
        counter = activity.metric_meter().create_counter(OUTAGES, "Models whose retries a call has used up.")
        counter.add(1, {"model": model})

    async def _give_up(self, attempt: Attempt, received: Completion, earlier: Completion | None) -> None:
        """Keep the text of the last attempt, or show and keep that of an earlier one."""
        step = attempt.step
        if not (received.text or received.reasoning):
            if earlier is None:
                step.take_back()
                return
            step.show(pieces_of(earlier.blocks()))
            received = earlier
        step.close_block()  # `close_turn` ends the step, with results for the tool calls that were announced in it
        await self._store_partial(attempt, received, CUT_OFF)

    async def _store(self, call: CallModel, completion: Completion, paid: PaidCall) -> StoredAnswer:
        """Store an answer, also when Stop arrives meanwhile: it has been paid for and shown.

        `paid`: the attempt that received it. The answer of a turn that has ended is booked, but not stored.
        """

        async def store() -> StoredAnswer:
            try:
                async with self._database.write() as connection:
                    return await store_answer(connection, call, completion, paid, may_end_turn=not stop_requested())
            except (TurnEndedError, NotFoundError):
                await self._costs.book(paid, completion)
                raise

        return await stored_despite_stop(
            store, self._settings.storage_window, keep=lambda answer: answer.turn_ended_at is not None
        )

    async def _store_partial(self, attempt: Attempt, received: Completion, reason: str) -> None:
        call = attempt.call
        if not (rows := partial_rows(call, received, reason, attempt.model)):
            return

        async def store() -> None:
            async with self._database.write() as connection:
                await append_to_turn(connection, call.turn, rows)

        await stored_despite_stop(store, self._settings.storage_window)

    async def _settle(self, attempt: Attempt, received: Completion | None, patience_s: float) -> None:
        """Book what an attempt that did not complete has received; None: it was refused and costs nothing.

        `patience_s`: how long the database is waited for.
        """
        if received is None and not attempt.reserves:
            return

        async def settle() -> None:
            if received is None:
                await self._costs.release(attempt.paid)
            else:
                await self._costs.book(attempt.paid, received)

        await stored_despite_stop(settle, patience_s)

    async def _end_stream(self, call: CallModel, publisher: StreamPublisher) -> None:
        """Seal the stream. A second attempt first compares it with the rows."""
        rows = None
        if activity.info().attempt > 1 and call.turn.published:
            with storage_faults():
                async with self._database.read() as connection:
                    rows = await conversation.rows_of_turn(connection, call.turn.turn_id)
        await end_stream(publisher, Ending(TurnStatus.COMPLETED, call.round, None), rows, self._settings.stream_ttl)


def _retrying(call: CallModel, delay_s: float, reason: str) -> Part:
    """Tells people that the call is tried again, when and why."""
    retrying = {"round": call.round, "status": "running", "retrying_in": round(delay_s, 2), "reason": reason}
    return data_part("progress", retrying, transient=True)


def _milliseconds_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
