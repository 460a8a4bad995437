"""A turn's stream for clients that know nothing of us: server-sent events without ids, in the parts of `ChatParts`."""

import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass

import orjson
from starlette.responses import StreamingResponse
from starlette.types import Send

from api.dependencies import Dependencies
from api.sse import DONE, FORGET_ID, HEADERS, KEEP_ALIVE, TurnEvents
from longhaul.db import parked, versions
from longhaul.db.models import ParkedStatus
from longhaul.errors import UnavailableError
from longhaul.streams.chat_parts import ChatParts, Rest, TakeBack, merged, message_id
from longhaul.streams.events import Part, encode
from longhaul.streams.reader import newest_id

log = logging.getLogger(__name__)
EVENT = re.compile(rb"(?:id: (?P<id>[^\n]+)\n)?data: (?P<data>\{[^\n]*)\n\n")
RUN_ID = "x-workflow-run-id"
TAIL_INDEX = "x-workflow-stream-tail-index"
#: A message that joined a turn which failed is answered by the next one, which may fail as well.
MAX_TURNS = 5
BEGINNING_IS_GONE = "The beginning of this stream is gone. Nothing of the answer is lost: load the conversation again."


@dataclass(frozen=True)
class ChatView:
    """What a client is shown of a turn, and how.

    Attributes:
        follow_up: only the message that begins with this follow-up; None: with the turn.
        all_messages: every message of the turn, one behind the other.
        join_deltas: what was said before comes in few large deltas.
        start_index: leave out so many parts from the beginning; if negative, all but so many of those there are.
        stop_when_left: Stop is meant when the client goes before the end.
        asks: the client can be asked to allow a tool call, or a question. Its stream ends when nothing more can come
            without its answer. Every client's stream ends when that is the result of a client's tool.
        steps: leave out so many steps, which the client has; of the last one it lacks outputs.
    """

    take_back: TakeBack = TakeBack.NOT_AT_ALL
    follow_up: str | None = None
    all_messages: bool = False
    join_deltas: bool = False
    start_index: int = 0
    stop_when_left: bool = False
    asks: bool = False
    steps: int = 0


class ChatEvents:
    """The events of one message of a turn for one chat client."""

    def __init__(self, deps: Dependencies, session_id: str, turn_id: str, view: ChatView) -> None:
        self._deps = deps
        self._session_id = session_id
        self._turn_id = turn_id
        self._view = view
        self._ended = False
        self._skip = max(0, view.start_index)

    async def response(self) -> StreamingResponse:
        run_id = message_id(self._turn_id, self._view.follow_up)
        headers = {**HEADERS, "x-longhaul-turn-id": self._turn_id, RUN_ID: run_id}
        if self._view.start_index < 0:
            count = await self._count_parts()
            self._skip = max(0, count + self._view.start_index)
            headers[TAIL_INDEX] = str(count - 1)
        return CutWhenUnfinished(self.events(), self.ended, headers)

    def ended(self) -> bool:
        """The client has had its last part."""
        return self._ended

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Chunks of events until the message has ended, this process ends, or the client goes."""
        sent_at = time.monotonic()
        try:
            async for parts in self.parts():
                now = time.monotonic()
                if parts or now - sent_at >= self._deps.settings.stream_keep_alive:
                    sent_at = now
                    yield b"".join(b"data: %b\n\n" % encode(part) for part in parts) or KEEP_ALIVE
            if self._ended:
                yield DONE
        finally:
            if self._view.stop_when_left and not self._ended and not self._deps.closing:
                self._deps.in_background(self._stop())

    async def parts(self) -> AsyncGenerator[list[Part], None]:
        """The parts that the client gets, in batches; an empty one now and then while there is nothing new."""
        left_out, rest = 0, Rest(self._view.steps)
        async for parts in self._of_turns():
            if self._view.steps:
                yield list(rest.of(parts))
                continue
            skipped = min(len(parts), self._skip - left_out)
            left_out += skipped
            yield parts[skipped:]

    async def _of_turns(self) -> AsyncGenerator[list[Part], None]:
        """The parts of the turn; of the next turn, if that takes the message instead."""
        for _ in range(MAX_TURNS):
            chat = self._chat(self._view.follow_up)
            begun = False
            parts: list[Part] = []
            async with aclosing(_events_of(self._deps, self._session_id, self._turn_id)) as batches:
                async for events in batches:
                    if events is None:
                        if self._view.start_index > 0:  # rows have no such index
                            self._ended = True
                            yield [{"type": "error", "errorText": BEGINNING_IS_GONE}, {"type": "finish"}]
                            return
                        continue
                    if events and not begun:
                        begun = True
                        if self._view.follow_up is not None and await self._began_turn():
                            chat = self._chat(None)
                    parts = chat.feed(part for _, part in events)
                    if chat.finished:
                        break
                    if await self._all_wait(chat.waits_for):
                        self._ended = True
                        parts += ({"type": "finish-step"}, {"type": "finish"})
                        yield merged(parts) if self._view.join_deltas else parts
                        return
                    yield merged(parts) if self._view.join_deltas else parts
            if not chat.finished:
                return  # this process ends
            next_turn = await self._next_turn(chat)
            if next_turn is None:
                self._ended = True
                yield merged(parts) if self._view.join_deltas else parts
                return
            self._turn_id = next_turn

    async def _all_wait(self, approval_ids: Collection[str]) -> bool:
        """Whether these approvals, if there are any, have no answer yet; False while the database is away."""
        if not approval_ids:
            return False
        try:
            async with self._deps.database.read() as connection:
                rows = await parked.of_turn(connection, self._turn_id)
        except UnavailableError as error:
            log.warning("whether turn %s waits for an answer is not known: %s", self._turn_id, error)
            return False
        return set(approval_ids) <= {row.id for row in rows if row.status is ParkedStatus.WAITING}

    def _chat(self, only: str | None) -> ChatParts:
        view = self._view
        return ChatParts(self._turn_id, view.take_back, only=only, all_messages=view.all_messages, asks=view.asks)

    async def _began_turn(self) -> bool:
        """Whether the turn began with the message, together with others, and did not take it as a follow-up."""
        placed = await self._place()
        return placed is not None and placed == (self._turn_id, 0)

    async def _next_turn(self, chat: ChatParts) -> str | None:
        """The turn that takes the message if this one ended without it; None: this one has it."""
        if self._view.follow_up is None or chat.shown:
            return None
        placed = await self._place()
        return placed[0] if placed is not None and placed[0] != self._turn_id else None

    async def _place(self) -> tuple[str, int | None] | None:
        """The turn and the round of the message; None while the database is away."""
        follow_up = self._view.follow_up or ""
        try:
            async with self._deps.database.read() as connection:
                found = await versions.of_message(connection, self._session_id, follow_up)
        except UnavailableError as error:
            log.warning("which turn took message %s is not known: %s", follow_up, error)
            return None
        return next(((row.turn_id or "", row.round) for row in found if row.client_message_id == follow_up), None)

    async def _count_parts(self) -> int:
        """How many parts the client would have by now."""
        newest = await newest_id(self._deps.redis, self._turn_id)
        if newest is None:
            return 0
        chat, count = self._chat(self._view.follow_up), 0
        async with aclosing(_events_of(self._deps, self._session_id, self._turn_id)) as batches:
            async for events in batches:
                if events is None:
                    break
                for event_id, part in events:
                    count += len(chat.feed([part]))
                    if event_id == newest:
                        return count
        return count

    async def _stop(self) -> None:
        try:
            await self._deps.stopper.request_stop(self._session_id, only_turn=self._turn_id)
        except UnavailableError as error:
            log.warning("turn %s was left by a client that meant to stop it: %s", self._turn_id, error)


async def _events_of(
    deps: Dependencies, session_id: str, turn_id: str
) -> AsyncGenerator[list[tuple[str, Part]] | None, None]:
    """The events of a turn with their ids, in batches; None: Redis does not have them, and they come from rows now."""
    async with aclosing(TurnEvents(deps, session_id, turn_id).events()) as chunks:
        async for chunk in chunks:
            if chunk == FORGET_ID:
                yield None
                continue
            found = EVENT.finditer(chunk)
            yield [((match["id"] or b"").decode(), orjson.loads(match["data"])) for match in found]


class CutWhenUnfinished(StreamingResponse):
    """Breaks the connection when this process ends before the message has, so that no client takes that for the end."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], ended: Callable[[], bool], headers: dict[str, str]) -> None:
        super().__init__(chunks, headers=headers)
        self._ended = ended

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self.body_iterator:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if self._ended():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
