"""Summarises the older part of a conversation that has become too long for the model's window."""

import asyncio
import logging
from contextlib import aclosing
from functools import partial

from openai import OpenAIError
from temporalio import activity

from activities.answers import append_to_turn, summarised_until, summary_of, unsummarised
from activities.asking import Asking
from activities.attempt import TurnStreams, handed_over, stop_requested, storage_faults
from longhaul.contracts import CompactContext, CompactedContext, Usage
from longhaul.db import ledger, messages, sessions
from longhaul.db.conversation import PromptMessage
from longhaul.db.database import Database
from longhaul.db.ledger import LedgerEntry
from longhaul.db.messages import NewMessage, row_id
from longhaul.errors import ContextTooLongError, StreamBrokenError
from longhaul.llm.client import ModelClient
from longhaul.llm.compaction import kept_from, summary_request
from longhaul.llm.completion import Assembler, Completion, priced
from longhaul.llm.request import Request, room
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
                used_up = await ledger.budget_used_up(connection, turn.session_id, compacting.scope)
                earlier = await summary_of(connection, session)
                rows = await unsummarised(connection, session)
        usage = Usage()
        if summary is None:
            behind = [row for row in rows if row.sequence > summarised_until(session)]
            summarised = behind[: kept_from(self._settings, session.token_scale, behind)]
            if used_up or not summarised:
                return NOT_COMPACTED
            build = partial(self._request, compacting.model, earlier, summarised)
            completion = await self._ask(compacting, build, room(self._settings, session.token_scale))
            if completion is None:
                return NOT_COMPACTED
            usage = completion.usage
            with storage_faults():
                await self._store(compacting, summary_id, completion, summarised)
                async with self._database.read() as connection:
                    summary = await messages.get(connection, summary_id)
        if summary is None:
            return CompactedContext(compacted=False, usage=usage)  # booked, but it gave no text
        async with self._streams.publisher(turn) as publisher:
            publisher.put(compaction_part(summary.id, summary.round, summary.context), once=f"compaction:{summary.id}")
        return CompactedContext(
            compacted=True, usage=Usage.model_validate(summary.usage or {}), published=not publisher.broken
        )

    def _request(self, model: str, earlier: str | None, rows: list[PromptMessage], max_tokens: float) -> Request:
        return summary_request(self._settings, model=model, earlier=earlier, rows=rows, max_tokens=max_tokens)

    async def _ask(self, compacting: CompactContext, build: "partial[Request]", max_tokens: float) -> Completion | None:
        """The model's summary; None if the call failed."""
        asking = Asking(self._model_client, self._settings, max_tokens)
        assembler = Assembler()
        call_key = f"compaction:{compacting.turn.turn_id}:{compacting.round}"
        try:
            async with asyncio.timeout(COMPACTION_S), aclosing(asking.chunks(build, call_key)) as chunks:
                async for chunk in chunks:
                    assembler.feed(chunk)
            if not assembler.ended:
                raise StreamBrokenError("The model's stream ended before its end.")
        except asyncio.CancelledError:
            if activity.is_worker_shutdown() and not stop_requested():
                raise handed_over() from None
            raise
        except (OpenAIError, StreamBrokenError, ContextTooLongError, TimeoutError) as error:
            log.warning("session %s gets no summary now: %r", compacting.turn.session_id, error)
            return None
        completion = assembler.completion(0)
        usage = priced(completion.model or compacting.model, completion.usage)
        return completion.model_copy(update={"usage": usage})

    async def _store(
        self, compacting: CompactContext, summary_id: str, completion: Completion, summarised: list[PromptMessage]
    ) -> None:
        """Book the call; store the summary, if it has a text, and the sequence up to which it stands for rows."""
        turn, until = compacting.turn, summarised[-1].sequence
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
        async with self._database.write() as connection:
            # An attempt that was taken for dead may have stored its own summary first; that one counts.
            if completion.text.strip() and await append_to_turn(connection, turn, [row]):
                await sessions.note_summary(connection, turn.session_id, summary_id, until)
            await ledger.book(
                connection,
                LedgerEntry(
                    id=row_id(turn.turn_id, compacting.round, "compaction"),
                    user_id=turn.user_id,
                    session_id=turn.session_id,
                    path=compacting.scope.path(turn.session_id),
                    turn_id=turn.turn_id,
                    round=compacting.round,
                    kind="compaction",
                    model=completion.model or compacting.model,
                    usage=completion.usage,
                ),
            )
