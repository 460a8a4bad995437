"""Summarises the older part of a conversation that has become too long for the model's window."""

import asyncio
import logging
from contextlib import aclosing
from functools import partial

from openai import OpenAIError
from temporalio import activity

from activities.answers import append_to_turn, summarised_until, summary_of, unsummarised
from activities.asking import Asking
from activities.attempt import TurnStreams, handed_over, stop_requested, storage_faults, stored_despite_stop
from activities.costs import Costs, paid_call
from longhaul.contracts import CompactContext, CompactedContext
from longhaul.db import ledger, messages, sessions
from longhaul.db.conversation import PromptMessage
from longhaul.db.database import Database
from longhaul.db.ledger import PaidCall
from longhaul.db.messages import NewMessage, row_id
from longhaul.errors import ContextTooLongError, NotFoundError, StreamBrokenError, TurnEndedError
from longhaul.llm.client import ModelClient
from longhaul.llm.compaction import kept_from, summary_request
from longhaul.llm.completion import Assembler, Completion
from longhaul.llm.estimate import Estimate
from longhaul.llm.failures import classify
from longhaul.llm.models import model_info
from longhaul.llm.request import Request, room, with_answer_limit
from longhaul.settings import Settings
from longhaul.streams.events import compaction_part

log = logging.getLogger(__name__)
COMPACTION_S = 300.0
NOT_COMPACTED = CompactedContext(compacted=False)


class CompactionActivities:
    """Summarises conversations."""

    def __init__(self, database: Database, streams: TurnStreams, model_client: ModelClient, settings: Settings) -> None:
        self._database = database
        self._streams = streams
        self._model_client = model_client
        self._settings = settings
        self._costs = Costs(database)

    @activity.defn
    async def compact_context(self, compacting: CompactContext) -> CompactedContext:
        """Store a summary of all but the newest rows, as a row of its own; model calls then read what is behind it.

        It is optional: without a summary, a model call is given what fits. So a model that fails, gives no text, or
        takes longer than `COMPACTION_S` ends nothing.

        Raises:
            ApplicationError: `StorageUnavailable`, `HandedOver`, `TurnEnded`.
        """
        turn = compacting.turn
        summary_id = row_id(turn.turn_id, compacting.round, "summary")
        with storage_faults():
            async with self._database.read() as connection:
                summary = await messages.get(connection, summary_id)
                session = await sessions.get(connection, turn.session_id)
                earlier = await summary_of(connection, session)
                rows = await unsummarised(connection, session)
        if summary is None:
            behind = [row for row in rows if row.sequence > summarised_until(session)]
            summarised = behind[: kept_from(self._window(compacting), session.token_scale, behind)]
            if not summarised:
                return NOT_COMPACTED
            build = partial(self._request, compacting, earlier, summarised)
            completion = await self._ask(compacting, build, session.token_scale)
            if completion is not None:
                with storage_faults():
                    await self._store(compacting, summary_id, completion, summarised)
        with storage_faults():
            async with self._database.read() as connection:
                summary = await messages.get(connection, summary_id)
                usage = await ledger.usage_of_round(
                    connection, turn.session_id, turn.turn_id, compacting.round, "compaction"
                )
        if summary is None:
            return CompactedContext(compacted=False, usage=usage)  # the calls gave no text
        async with self._streams.publisher(turn) as publisher:
            publisher.put(compaction_part(summary.id, summary.round, summary.context), once=f"compaction:{summary.id}")
        return CompactedContext(compacted=True, usage=usage, published=not publisher.broken)

    def _window(self, compacting: CompactContext) -> int:
        return model_info(self._settings, compacting.model).window

    def _room(self, compacting: CompactContext, token_scale: float | None) -> float:
        return room(self._window(compacting), self._settings.context_share, token_scale)

    def _estimate(self, asking: Asking, token_scale: float | None) -> Estimate:
        return Estimate(asking.request, token_scale, self._settings.prompt_cache_ttl)

    def _request(
        self, compacting: CompactContext, earlier: str | None, rows: list[PromptMessage], max_tokens: float
    ) -> Request:
        """The request of at most `max_tokens`. A budget can only be kept if the summary has a limit too."""
        request = summary_request(
            self._settings, model=compacting.model, earlier=earlier, rows=rows, max_tokens=max_tokens
        )
        if not _reserves(compacting):
            return request
        return request._replace(body=with_answer_limit(request.body, self._settings.budget_answer_tokens))

    async def _ask(
        self, compacting: CompactContext, build: "partial[Request]", token_scale: float | None
    ) -> Completion | None:
        """The model's summary; None if a budget has no room for it or the call failed. A call that broke off is booked
        as far as it came.
        """
        asking = Asking(self._model_client, self._settings, build(self._room(compacting, token_scale)))
        paid, assembler = paid_call(compacting, activity.info().attempt), Assembler()
        if not await self._allowed(compacting, paid, self._estimate(asking, token_scale)):
            log.info("session %s gets no summary now: its budget has no room for it", paid.session_id)
            return None

        async def settle(*, billed: bool) -> None:
            if billed:
                broken = self._estimate(asking, token_scale).completed(assembler.completion(0))
                await self._costs.book(paid, broken)
            elif _reserves(compacting):
                await self._costs.release(paid)

        call_key = f"compaction:{compacting.turn.turn_id}:{compacting.round}"
        try:
            async with asyncio.timeout(COMPACTION_S), aclosing(asking.chunks(build, call_key)) as chunks:
                async for chunk in chunks:
                    assembler.feed(chunk)
            if not assembler.ended:
                raise StreamBrokenError("The model's stream ended before its end.")
        except asyncio.CancelledError:
            window = self._settings.storage_window if stop_requested() else 0
            await stored_despite_stop(partial(settle, billed=True), window)
            if activity.is_worker_shutdown() and not stop_requested():
                raise handed_over() from None
            raise
        except (OpenAIError, StreamBrokenError, ContextTooLongError, TimeoutError) as error:
            log.warning("session %s gets no summary now: %r", compacting.turn.session_id, error)
            billed = isinstance(error, TimeoutError) or classify(error).billed
            await stored_despite_stop(partial(settle, billed=billed), self._settings.storage_window)
            return None
        return self._estimate(asking, token_scale).completed(assembler.completion(0))

    async def _allowed(self, compacting: CompactContext, paid: PaidCall, estimate: Estimate) -> bool:
        """Reserve the call's cost if a budget limits the session; a summary must not take the place of an answer."""
        if not _reserves(compacting):
            return True
        with storage_faults():
            refusal = await self._costs.reserve(
                paid, compacting.scope, estimate, COMPACTION_S + self._settings.storage_window, only_if_it_fits=True
            )
        return refusal is None

    async def _store(
        self, compacting: CompactContext, summary_id: str, completion: Completion, summarised: list[PromptMessage]
    ) -> None:
        """Book the call; store the summary, if it has a text, and the sequence up to which it stands for rows.

        The summary of a turn that has ended is booked, but not stored.
        """
        turn, until = compacting.turn, summarised[-1].sequence
        paid = paid_call(compacting, activity.info().attempt)
        paid = paid._replace(model=completion.model or paid.model)
        row = NewMessage(
            id=summary_id,
            role="system",
            kind="summary",
            content=completion.text,
            turn_id=turn.turn_id,
            round=compacting.round,
            context={"until": until, "rows": len(summarised)},
            usage=completion.usage.model_dump(),
        )
        try:
            async with self._database.write() as connection:
                await ledger.lock(connection, turn.session_id)
                # An attempt that was taken for dead may have stored its own summary first; that one counts.
                if completion.text.strip() and await append_to_turn(connection, turn, [row]):
                    await sessions.note_summary(connection, turn.session_id, summary_id, until)
                await ledger.book(connection, paid, completion.usage, estimated=completion.is_estimated)
        except (TurnEndedError, NotFoundError):
            await self._costs.book(paid, completion)
            raise


def _reserves(compacting: CompactContext) -> bool:
    """Whether a budget of money limits the session."""
    return bool(ledger.money_budgets(compacting.turn.session_id, compacting.scope))
