"""A copilot without any durability, accounts or rows: the loop over the `openai` client that everybody begins with."""

import json
import time
from types import TracebackType
from typing import Any, NamedTuple
from uuid import uuid4

from openai import AsyncOpenAI

from longhaul.llm.client import CALL_HEADER
from longhaul.tools.quick import calculate, calculator


class Timed(NamedTuple):
    """One turn: when it began and ended, the model's key of its last call, and its deltas of text with their times.

    All times are seconds since the epoch.
    """

    begun: float
    ended: float
    key: str
    deltas: list[tuple[str, float]]

    @property
    def whole_ms(self) -> float:
        return (self.ended - self.begun) * 1000

    @property
    def first_text_ms(self) -> float:
        return (self.deltas[0][1] - self.begun) * 1000


class PlainLoop:
    """Calls the model and the tools that it asks for, in this process, until an answer asks for none."""

    def __init__(self, base_url: str) -> None:
        self._client = AsyncOpenAI(base_url=base_url, api_key="offline", max_retries=0)

    async def __aenter__(self) -> "PlainLoop":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def turn(self, text: str) -> Timed:
        messages: list[dict[str, object]] = [{"role": "user", "content": text}]
        begun = time.time()
        while True:
            key = str(uuid4())
            deltas: list[tuple[str, float]] = []
            calls: dict[int, dict[str, str | None]] = {}
            stream: Any = await self._client.chat.completions.create(
                model="offline-standard",
                messages=messages,  # type: ignore[arg-type]
                tools=[calculator.schema],  # type: ignore[list-item]
                stream=True,
                extra_headers={CALL_HEADER: key},
            )
            async for chunk in stream:
                for choice in chunk.choices:
                    if choice.delta.content:
                        deltas.append((choice.delta.content, time.time()))
                    for call in choice.delta.tool_calls or ():
                        kept = calls.setdefault(call.index, {"id": call.id, "name": "", "arguments": ""})
                        if call.function:
                            kept["name"] = str(kept["name"]) + (call.function.name or "")
                            kept["arguments"] = str(kept["arguments"]) + (call.function.arguments or "")
            if not calls:
                return Timed(begun, time.time(), key, deltas)
            made = [
                {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
                for c in calls.values()
            ]
            text_before = "".join(delta for delta, _ in deltas) or None
            messages.append({"role": "assistant", "content": text_before, "tool_calls": made})
            for call_made in calls.values():
                value = calculate(json.loads(str(call_made["arguments"]))["expression"])
                messages.append({"role": "tool", "tool_call_id": call_made["id"], "content": str(value)})
