"""A turn's parts as server-sent events: from Redis as they are written, from rows when Redis does not have them.

One instance serves one client, at the client's pace. All clients of a turn in this process share its feed and what is
looked up about it (`longhaul/streams/feed.py`).
"""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.responses import StreamingResponse

from api import metrics
from api.dependencies import Dependencies
from longhaul.errors import UnavailableError
from longhaul.streams.events import FINISH_ID, data_part, encode
from longhaul.streams.feed import StreamLostError, TurnFeed
from longhaul.streams.from_rows import parts_from_rows
from longhaul.streams.reader import BEGINNING, StreamReader
from longhaul.streams.viewer import ViewerState

log = logging.getLogger(__name__)
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
# An event without data shows nowhere, but makes a client that reconnects ask from the beginning: rows have no ids.
FORGET_ID = f"id: {BEGINNING}\n\n".encode()
# `finish` has the same id from rows as from Redis: a client that has seen it is not sent the turn again.
LAST_ID = f"id: {FINISH_ID}\n".encode()
# With its id in the same event: a client that is cut off behind this has nothing left, so it must not go on from the
# last event that it had.
VOID_ALL = b"id: %b\ndata: %b\n\n" % (BEGINNING.encode(), encode(data_part("voided", {"ids": [], "all": True})))
CHECK_ROWS_EVERY = 2  # silent reads
CHECK_RUNNING_EVERY = 10

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
    "x-vercel-ai-ui-message-stream": "v1",
}


class TurnEvents:
    """The events of one turn for one client, behind `after` if it has seen some."""

    def __init__(self, deps: Dependencies, session_id: str, turn_id: str, after: str | None = None) -> None:
        self._deps = deps
        self._session_id = session_id
        self._turn_id = turn_id
        self._after = after
        self._state = ViewerState()
        self._client_unknown = after is not None  # the client may have parts that are not in `_state`
        self._silent = 0  # reads
        self._rows_ahead = False

    def response(self) -> StreamingResponse:
        headers = {**HEADERS, "x-longhaul-turn-id": self._turn_id}
        return StreamingResponse(self.events(), headers=headers)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Chunks of events until the turn has ended, this process ends, or the client goes."""
        sent_at = time.monotonic()
        with metrics.STREAMS_OPEN.track_inprogress(), self._deps.feeds.follow(self._turn_id) as feed:
            async for chunk in self._chunks(feed):
                now = time.monotonic()
                if chunk or now - sent_at >= self._deps.settings.stream_keep_alive:
                    sent_at = now
                    yield chunk or KEEP_ALIVE
                if self._deps.closing:
                    return  # without its [DONE]: the client sees that it was cut off and resumes elsewhere
            yield DONE

    async def _chunks(self, feed: TurnFeed) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._from_redis(feed):
                yield chunk
        except StreamLostError as error:
            log.warning("stream of turn %s goes on from rows: %s", self._turn_id, error)
            metrics.FALLBACKS.inc()
            if self._client_unknown:
                yield VOID_ALL
                self._state = ViewerState()
        if self._state.finished:
            return
        yield FORGET_ID
        rows = parts_from_rows(
            self._deps.database,
            feed.looks,
            self._state,
            self._session_id,
            self._turn_id,
            lambda: self._deps.turns.is_running(self._session_id, self._turn_id),
        )
        async for parts in rows:
            events = [b"data: %b\n\n" % part for part in parts]
            if events and self._state.finished:
                events[-1] = LAST_ID + events[-1]
            yield b"".join(events)

    async def _from_redis(self, feed: TurnFeed) -> AsyncIterator[bytes]:
        reader = StreamReader(self._deps.feeds, feed, self._state)
        if self._after is not None:
            known = await reader.skip_to(self._after)
            self._client_unknown = False
            if not known:  # an id of another stream: of another turn, or of this turn's stream before it was withdrawn
                yield VOID_ALL
        while not self._state.finished:
            entries = await reader.read()
            self._silent = 0 if entries else self._silent + 1
            self._rows_ahead = self._rows_ahead and not entries
            if not entries:
                await self._check_silence(feed, reader)
            yield b"".join(b"id: %b\ndata: %b\n\n" % entry for entry in entries)

    async def _check_silence(self, feed: TurnFeed, reader: StreamReader) -> None:
        """Distinguish a turn that is thinking from a stream that has no writer any more.

        Raises:
            StreamLostError: the stream is gone from Redis, or it lacks parts whose rows are stored.
        """
        if self._state.started and not await reader.exists():
            raise StreamLostError("it has gone from Redis")
        if self._silent % CHECK_ROWS_EVERY:
            return
        turns, ids = self._deps.turns, (self._session_id, self._turn_id)
        try:
            stored = await feed.look("stored", lambda: turns.stored(*ids))
            if stored is not None and not self._state.started:
                raise StreamLostError("the turn goes on and Redis does not have its beginning")
            ahead = stored is not None and (stored.status.final or stored.round > self._state.answered_round)
            if ahead and self._rows_ahead:
                raise StreamLostError("rows are ahead of what Redis has")
            self._rows_ahead = ahead  # An answer's row is stored a moment before its last parts are: look once more.
            check_running = self._silent % CHECK_RUNNING_EVERY == 0
            if check_running and not await feed.look("runs", lambda: turns.is_running(*ids)):
                raise StreamLostError("the turn does not run")
        except UnavailableError as error:
            log.debug("turn %s is streamed on from Redis alone: %s", self._turn_id, error)
