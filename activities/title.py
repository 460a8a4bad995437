"""Names a new session with a small model, beside the first model call, so that nobody waits for it."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing, suppress

from openai import OpenAIError

from activities.deps import Deps
from longhaul.contracts import CallModel
from longhaul.db import ledger, sessions
from longhaul.db.ledger import LedgerEntry
from longhaul.db.messages import StoredMessage, row_id
from longhaul.errors import StreamBrokenError, UnavailableError
from longhaul.llm import prompts
from longhaul.llm.completion import Assembler, priced
from longhaul.streams.events import data_part
from longhaul.streams.publisher import StreamPublisher

log = logging.getLogger(__name__)
SHOWN_CHARS = 2_000
TITLE_CHARS = 100


class TitleCall:
    """Runs while the block runs; what is not there at its end is tried again in the session's next turn."""

    def __init__(self, deps: Deps, call: CallModel, publisher: StreamPublisher, *, wanted: bool) -> None:
        self._deps = deps
        self._call = call
        self._publisher = publisher
        self._wanted = wanted and bool(deps.settings.model_small)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "TitleCall":
        return self

    def start(self, rows: Sequence[StoredMessage]) -> None:
        """Begin, if a title is wanted and somebody has said something."""
        first = next((row.content for row in rows if row.role == "user"), "")
        if self._wanted and first:
            self._task = asyncio.create_task(self._run(first[:SHOWN_CHARS]))

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, first_message: str) -> None:
        try:
            await self._name(first_message)
        except (OpenAIError, StreamBrokenError, UnavailableError) as error:
            log.warning("session %s stays untitled for now: %s", self._call.turn.session_id, error)

    async def _name(self, first_message: str) -> None:
        deps, turn, model = self._deps, self._call.turn, self._deps.settings.model_small
        assembler = Assembler()
        prompt = [{"role": "system", "content": prompts.TITLE}, {"role": "user", "content": first_message}]
        body = {"model": model, "messages": prompt, "max_tokens": 40, "stream_options": {"include_usage": True}}
        async with aclosing(deps.model.stream(body)) as chunks:
            async for chunk in chunks:
                assembler.feed(chunk)
        completion = assembler.completion(0)
        title = " ".join(completion.text.split()).strip(" \"'.")[:TITLE_CHARS]
        if not title:
            return
        async with deps.db.write() as connection:
            named = await sessions.name_if_untitled(connection, turn.session_id, title)
            await ledger.book(
                connection,
                LedgerEntry(
                    id=row_id(turn.turn_id, self._call.round, "title"),
                    user_id=turn.user_id,
                    session_id=turn.session_id,
                    path=self._call.scope.path(turn.session_id),
                    turn_id=turn.turn_id,
                    round=self._call.round,
                    kind="title",
                    model=model,
                    usage=priced(model, completion.usage),
                ),
            )
        if named:
            self._publisher.put(data_part("title", {"title": title}))
