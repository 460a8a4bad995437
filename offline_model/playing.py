"""Playing an answer on the wire, at its pace, with the fault that breaks it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.types import Receive, Send

from offline_model.answer import Answer
from offline_model.faults import FaultSpec
from offline_model.http import break_connection, respond, start
from offline_model.request import ChatRequest
from offline_model.stats import CallRecord
from offline_model.wire import error_body, stream_chunks, whole_body

_BATCH = 64 * 1024
_SSE = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


@dataclass(slots=True)
class Pace:
    """Seconds to the first token, and between tokens."""

    ttft: float
    delay: float


@dataclass(slots=True)
class Call:
    """One accepted request with its answer; `begun` is when it came, on the performance counter."""

    request: ChatRequest
    answer: Answer
    fault: FaultSpec | None
    pace: Pace
    begun: float
    record: CallRecord
    receive: Receive
    send: Send

    async def play(self) -> None:
        """Send the answer, or break where the fault says so."""
        if self.fault and self.fault.kind == "status":
            await self._status(self.fault)
        elif self._kind == "refuse":
            await self._break("refused")
        elif self.request.stream:
            await self._stream()
        else:
            await self._whole()

    @property
    def _kind(self) -> str:
        return self.fault.kind if self.fault else ""

    @property
    def _sent(self) -> str:
        """What became of an answer that was sent to its end: nobody can read one with a broken chunk as whole."""
        return "badchunk" if self._kind == "badchunk" else "completed"

    async def _break(self, outcome: str) -> None:
        self.record.outcome = outcome
        await break_connection(self.send, self.receive)

    async def _status(self, fault: FaultSpec) -> None:
        status = fault.number
        self.record.outcome = f"status {status}"
        kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        body = error_body(f"The offline model was asked for status {status}.", kind, code="fault")
        await respond(self.send, status, body, fault.response_headers())

    async def _whole(self) -> None:
        """An answer in one piece, after the time that streaming it would have taken."""
        pieces = len(self.answer.pieces) + len(self.answer.reasoning)
        silence = self.fault.seconds if self.fault else 0.0
        due = self.begun + self.pace.ttft + pieces * self.pace.delay + silence
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        body = whole_body(self.request, self.answer)
        self.record.first_chunk_at = time.time()
        if self._kind == "cut":
            await start(self.send, 200, [("content-type", "application/json"), ("content-length", str(len(body)))])
            await self._flush([body[: len(body) // 2]])
            await self._break("cut")
            return
        await respond(self.send, 200, b"{oops" if self._kind == "badchunk" else body)
        self.record.outcome = self._sent

    async def _stream(self) -> None:
        """Send each chunk when it is due; chunks that are overdue go out together."""
        chunks = stream_chunks(self.request, self.answer)
        events = [*chunks.deltas, chunks.tail]
        number = self.fault.number if self.fault else 0
        if self._kind == "badchunk":
            events.insert(min(max(0, number - 1), len(chunks.deltas)), b"data: {oops\n\n")
        stop = min(number, len(events) - 1) if self._kind in ("cut", "silence") else -1
        await start(self.send, 200, _SSE)
        due = self.begun + self.pace.ttft
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        self.record.first_chunk_at = time.time()
        waiting = [chunks.head]
        size = 0
        for i, event in enumerate(events):
            if i == stop:
                await self._flush(waiting)
                if self._kind == "cut":
                    await self._break("cut")
                    return
                await asyncio.sleep(self.fault.seconds if self.fault else 0.0)
                due = time.perf_counter()
            elif 0 < i < len(events) - 1:
                due += self.pace.delay
            ahead = due - time.perf_counter()
            if ahead > 0 or size > _BATCH:
                await self._flush(waiting)
                size = 0
                await asyncio.sleep(max(0.0, ahead))
            waiting.append(event)
            size += len(event)
        await self._flush(waiting, more=False)
        self.record.outcome = self._sent

    async def _flush(self, waiting: list[bytes], more: bool = True) -> None:
        body = b"".join(waiting)
        waiting.clear()
        if body or not more:
            await self.send({"type": "http.response.body", "body": body, "more_body": more})
