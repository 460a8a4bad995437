"""POST /v1/chat/completions: decide, then play the answer, with the fault that was asked for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from starlette.types import Receive, Send

from offline_model.answer import Answer, decide
from offline_model.conversation import Conversation, ToolCall, read_conversation
from offline_model.directives import Directives, read_directives
from offline_model.faults import FaultBook, FaultSpec
from offline_model.http import respond
from offline_model.options import OfflineOptions
from offline_model.phrases import shortened
from offline_model.playing import Call, Pace
from offline_model.request import BadRequestError, ChatRequest, parse_request
from offline_model.stats import CallRecord, Stats
from offline_model.wire import error_body


@dataclass(slots=True)
class ChatEndpoint:
    """The one route that matters, with all that it needs."""

    options: OfflineOptions
    stats: Stats
    faults: FaultBook

    async def handle(self, raw: bytes, key: str, receive: Receive, send: Send) -> None:
        """Answer one request; a client that goes away ends the work at once."""
        begun = time.perf_counter()
        try:
            request = parse_request(raw, key)
        except BadRequestError as wrong:
            body = error_body(wrong.message, "invalid_request_error", wrong.param, wrong.code)
            await respond(send, 400, body)
            return
        conversation = read_conversation(request.messages)
        newest = conversation.newest_text
        record = CallRecord(key, request.model, request.stream, len(request.messages), shortened(newest, 80))
        self.stats.begin(record)
        try:
            answer = decide(request, conversation)
            asked = Directives() if answer.special else read_directives(newest)
            fault = self._fault(request, key, conversation, answer, asked)
            pace = self._pace(asked, answer)
            record.fault = fault.text if fault else None
            answer = reshaped(answer, fault)
            record.tool_calls = [c.name for c in answer.calls]
            record.finish_reason = answer.finish
            call = Call(request, answer, fault, pace, begun, record, receive, send)
            job = asyncio.create_task(call.play())
            await _until_done_or_gone(job, receive)
        finally:
            self.stats.end(record)

    def _fault(
        self, request: ChatRequest, key: str, conversation: Conversation, answer: Answer, asked: Directives
    ) -> FaultSpec | None:
        return self.faults.take(
            conversation.newest_text,
            key or request.digest,
            conversation.rounds_since_original() + 1,
            bool(answer.calls),
            asked.faults,
        )

    def _pace(self, asked: Directives, answer: Answer) -> Pace:
        ttft = self.options.ttft_ms if asked.ttft_ms is None else asked.ttft_ms
        delay = self.options.token_delay_ms if asked.delay_ms is None else asked.delay_ms
        return Pace(ttft / 1000, delay / 1000 if answer.paced else 0.0)


async def _until_done_or_gone(job: asyncio.Task[None], receive: Receive) -> None:
    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.create_task(gone())
    try:
        await asyncio.wait({job, watch}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            job.result()
    finally:
        watch.cancel()
        job.cancel()
        await asyncio.gather(job, watch, return_exceptions=True)


def reshaped(answer: Answer, fault: FaultSpec | None) -> Answer:
    """The answer with the fault in it, for the faults that are in what is said, not in how it is sent."""
    kind = fault.kind if fault else ""
    if kind == "badargs":
        answer.calls = [ToolCall(c.name, c.arguments[:-1] or "{") for c in answer.calls]
    elif kind == "unknowntool":
        answer.calls = [ToolCall("no_such_tool", c.arguments) for c in answer.calls]
    elif kind == "empty":
        return Answer()
    elif kind in ("length", "content_filter"):
        kept = answer.pieces[: max(1, len(answer.pieces) // 2)] or ["This ", "answer ", "breaks ", "off"]
        return Answer(answer.reasoning, kept, [], kind, answer.paced)
    return answer
