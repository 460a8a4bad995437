"""Names a new session with a small model, in the background: no turn waits for it, and none fails by it."""

import asyncio
import logging
from contextlib import aclosing

from openai import OpenAIError

from activities.attempt import TurnStreams
from activities.costs import Costs
from longhaul.contracts import Scope, TurnRef
from longhaul.db import ledger, messages, sessions
from longhaul.db.connection import Connection
from longhaul.db.database import Database
from longhaul.db.ledger import PaidCall
from longhaul.db.messages import row_id
from longhaul.db.sessions import Session
from longhaul.errors import ContextTooLongError, StreamBrokenError, UnavailableError
from longhaul.llm import prompts
from longhaul.llm.client import ModelClient
from longhaul.llm.completion import Assembler, Completion
from longhaul.llm.estimate import Estimate
from longhaul.llm.failures import classify
from longhaul.llm.models import model_info
from longhaul.llm.request import Request, request_body, with_answer_limit
from longhaul.llm.tokens import tokens_of_request
from longhaul.settings import Settings
from longhaul.streams.events import data_part
from longhaul.streams.scripts import ActivityAttempt

log = logging.getLogger(__name__)
MESSAGE_CHARS = 2_000
TITLE_CHARS = 100
PROVISIONAL_CHARS = 60
TITLE_S = 60.0
TITLE_TOKENS = 40
#: For a model that thinks in any case, and whose limit counts that too.
THINKING_TOKENS = 2_000


class Titles:
    """Asks for titles. A session gets a provisional title first, from its first message.

    Storing the provisional title claims the session, so that exactly one model call is made for it, however often the
    activity or the turn is repeated. If the call fails or the worker dies, the provisional title stays.
    """

    def __init__(self, database: Database, streams: TurnStreams, model_client: ModelClient, settings: Settings) -> None:
        self._database = database
        self._streams = streams
        self._model_client = model_client
        self._settings = settings
        self._model = settings.model_small
        self._costs = Costs(database)
        self._running: set[asyncio.Task[None]] = set()

    async def claim(self, connection: Connection, session: Session, message_id: str) -> str:
        """Give an untitled session its provisional title; the message to name it by, or "" if no title is needed."""
        if not self._model or session.title is not None:
            return ""
        message = await messages.get(connection, row_id(session.id, "user", message_id))
        text = message.content if message is not None else ""
        if not text.strip() or not await sessions.name_if_untitled(connection, session.id, provisional(text)):
            return ""
        return text

    def start(self, turn: TurnRef, scope: Scope, text: str) -> None:
        """Ask for the title of a claimed session."""
        task = asyncio.create_task(self._name(turn, scope, text))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a title failed by a defect", exc_info=error)

    async def close(self) -> None:
        """Cut off the calls that are still running."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _name(self, turn: TurnRef, scope: Scope, text: str) -> None:
        call = PaidCall(
            id=row_id(turn.session_id, "title"),
            user_id=turn.user_id,
            session_id=turn.session_id,
            path=scope.path(turn.session_id),
            turn_id=turn.turn_id,
            round=0,
            attempt=1,
            model=self._model,
            kind="title",
        )
        request = self._request(text[:MESSAGE_CHARS])
        try:
            if not await self._allowed(call, scope, request):
                log.info("session %s keeps its provisional title: its budget has no room for another", turn.session_id)
                return
            completion = await self._ask(call, request)
            title = " ".join(completion.text.split()).strip(" \"'.")[:TITLE_CHARS]
            named = await self._store(call, completion, title, provisional(text))
            if named:
                async with self._streams.publisher_of(turn, ActivityAttempt(f"title:{turn.turn_id}")) as publisher:
                    publisher.put(data_part("title", {"title": title}))
        except (OpenAIError, StreamBrokenError, ContextTooLongError, UnavailableError, TimeoutError) as error:
            log.warning("session %s keeps its provisional title: %s", turn.session_id, error)

    def _request(self, text: str) -> Request:
        prompt = [{"role": "system", "content": prompts.TITLE}, {"role": "user", "content": text}]
        info = model_info(self._settings, self._model)
        body = request_body(self._settings, model=self._model, effort="none", messages=prompt, tools=[])
        thinks = body.get("reasoning_effort", "none") != "none"
        body = with_answer_limit(body, TITLE_TOKENS + (THINKING_TOKENS if thinks else 0))
        return Request(body, tokens_of_request(body), shortened=False, model=info)

    def _estimate(self, request: Request) -> Estimate:
        return Estimate(request, None, self._settings.prompt_cache_ttl)

    async def _allowed(self, call: PaidCall, scope: Scope, request: Request) -> bool:
        """Reserve the call's cost if a budget limits the session; a title must not take the place of an answer."""
        if not ledger.money_budgets(call.session_id, scope):
            return True
        refusal = await self._costs.reserve(call, scope, self._estimate(request), TITLE_S, only_if_it_fits=True)
        return refusal is None

    async def _ask(self, call: PaidCall, request: Request) -> Completion:
        """The answer. A call that breaks off is booked as far as it came."""
        assembler = Assembler()
        chunks = self._model_client.stream(request.body, call_key=f"title:{call.turn_id}")
        try:
            async with asyncio.timeout(TITLE_S), aclosing(chunks):
                async for chunk in chunks:
                    assembler.feed(chunk)
        except (OpenAIError, StreamBrokenError, ContextTooLongError, TimeoutError, asyncio.CancelledError) as error:
            if isinstance(error, OpenAIError | ContextTooLongError) and not classify(error).billed:
                await self._costs.release(call)
            else:
                broken = self._estimate(request).completed(assembler.completion(0))
                await self._costs.book(call, broken)
            raise
        return self._estimate(request).completed(assembler.completion(0))

    async def _store(self, call: PaidCall, completion: Completion, title: str, replaces: str) -> bool:
        """Book the call and replace the provisional title; False if a person has renamed the session meanwhile."""
        async with self._database.write() as connection:
            await ledger.lock(connection, call.session_id)
            await ledger.book(connection, call, completion.usage, estimated=completion.is_estimated)
            return bool(title) and await sessions.replace_title(connection, call.session_id, replaces, title)


def provisional(text: str) -> str:
    """The beginning of a message as a title."""
    line = messages.replace_unstorable(" ".join(text.split()))
    return line if len(line) <= PROVISIONAL_CHARS else line[: PROVISIONAL_CHARS - 1].rstrip() + "…"
