"""A turn's parts as server-sent events: from Redis as they come, from rows when Redis cannot say.

One instance serves one client. The client's pace is the generator's pace: what it has not taken is not read.
"""

import logging
import time
from collections.abc import AsyncIterator, Iterable

from starlette.responses import StreamingResponse

from api import metrics
from api.dependencies import Dependencies
from longhaul.errors import UnavailableError
from longhaul.streams.events import data_part, encode
from longhaul.streams.from_rows import parts_from_rows
from longhaul.streams.reader import BEGINNING, StreamLostError, StreamReader
from longhaul.streams.viewer import Seen

log = logging.getLogger(__name__)
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
# An event without data shows nowhere, but makes a client that reconnects ask from the beginning: ids end here.
FORGET_ID = f"id: {BEGINNING}\n\n".encode()
VOID_ALL = b"data: %b\n\n" % encode(data_part("voided", {"ids": [], "all": True}))
ROWS_EVERY = 2  # silent reads
ALIVE_EVERY = 10

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
        self._seen = Seen()
        self._reader = StreamReader(deps.stream_redis, turn_id, self._seen)
        self._silent = 0

    def response(self) -> StreamingResponse:
        headers = {**HEADERS, "x-longhaul-turn-id": self._turn_id}
        return StreamingResponse(self.events(), headers=headers)

    async def events(self) -> AsyncIterator[bytes]:
        """Chunks of events until the turn has ended, this process ends, or the client goes."""
        sent_at = time.monotonic()
        with metrics.STREAMS_OPEN.track_inprogress():
            async for chunk in self._chunks():
                now = time.monotonic()
                if chunk or now - sent_at >= self._deps.settings.stream_keep_alive:
                    sent_at = now
                    yield chunk or KEEP_ALIVE
                if self._deps.closing:
                    return  # without its [DONE]: the client sees that it was cut off and resumes elsewhere
            yield DONE

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._from_redis():
                yield chunk
        except StreamLostError as error:
            log.warning("stream of turn %s goes on from rows: %s", self._turn_id, error)
            metrics.FALLBACKS.inc()
            self._seen.unknown = self._after is not None and not self._seen.started
        if self._seen.finished:
            return
        yield FORGET_ID
        rows = parts_from_rows(
            self._deps.database,
            self._seen,
            self._session_id,
            self._turn_id,
            lambda: self._deps.turns.is_running(self._session_id, self._turn_id),
        )
        async for parts in rows:
            yield b"".join(b"data: %b\n\n" % part for part in parts)

    async def _from_redis(self) -> AsyncIterator[bytes]:
        if self._after is not None:
            await self._reader.skip_to(self._after)
        if self._after == BEGINNING:
            yield VOID_ALL
        while not self._seen.finished:
            entries = await self._reader.read()
            self._silent = 0 if entries else self._silent + 1
            if not entries:
                await self._check_silence()
            yield b"".join(_events(entries))

    async def _check_silence(self) -> None:
        """Tell a turn that thinks from a stream that nobody will write to any more.

        Raises:
            StreamLostError: what comes, or has come, is not to be had from Redis.
        """
        if self._seen.started and not await self._reader.exists():
            raise StreamLostError("it has gone from Redis")
        if self._silent % ROWS_EVERY:
            return
        try:
            stored = await self._deps.turns.stored(self._session_id, self._turn_id)
            if stored is not None and not self._seen.started:
                raise StreamLostError("the turn goes on and Redis does not have its beginning")
            if stored is not None and (stored.status.final or stored.round > (self._seen.round or 0)):
                raise StreamLostError("rows are ahead of what Redis has")
            if self._silent % ALIVE_EVERY == 0 and not await self._deps.turns.is_running(
                self._session_id, self._turn_id
            ):
                raise StreamLostError("the turn does not run")
        except UnavailableError as error:
            log.debug("turn %s is streamed on from Redis alone: %s", self._turn_id, error)


def _events(entries: Iterable[tuple[bytes, bytes]]) -> Iterable[bytes]:
    for entry_id, part in entries:
        yield b"id: %b\ndata: %b\n\n" % (entry_id, part)
