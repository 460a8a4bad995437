"""Puts the chunks of a streamed Chat Completion together."""

import logging
import math
from typing import Any, Literal

from pydantic import BaseModel

from copilot.contracts import Usage
from copilot.llm.think import ThinkSplitter

log = logging.getLogger(__name__)
VISIBLE_REASONING = (None, "reasoning.text", "reasoning.summary")


class CompletedCall(BaseModel):
    """A tool call as the model wrote it; `arguments` is its raw string."""

    id: str
    name: str
    arguments: str


class Completion(BaseModel):
    """A whole answer; small enough to travel in heartbeat details unless the model wrote a book."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[CompletedCall] = []
    finish_reason: str = ""
    usage: Usage = Usage()
    model: str = ""
    duration_ms: int = 0


Piece = tuple[Literal["text", "reasoning", "tool", "arguments"], str, str]


class Assembler:
    """Feed it decoded chunks; it answers with the pieces to show and keeps the whole.

    Malformed parts of a chunk are logged and dropped: a provider's odd field must not end a turn.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._ids: set[str] = set()
        self._splitter = ThinkSplitter()
        self.finish_reason = ""
        self.usage = Usage(calls=1)
        self.model = ""

    def feed(self, chunk: dict[str, Any]) -> list[Piece]:
        """The pieces in a chunk: text, reasoning, or a tool call's name or arguments with the call's id."""
        self.model = self.model or str(chunk.get("model") or "")
        if isinstance(chunk.get("usage"), dict):
            self.usage = _usage(chunk["usage"])
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return []
        choice = choices[0]
        pieces: list[Piece] = []
        delta = choice.get("delta")
        if isinstance(delta, dict):
            if reasoning := _reasoning(delta):
                pieces.append(self._keep("reasoning", reasoning))
            content = delta.get("content")
            if isinstance(content, str) and content:
                pieces += [self._keep(kind, piece) for kind, piece in self._splitter.feed(content)]
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                pieces += self._call(call)
        if choice.get("finish_reason"):
            self.finish_reason = str(choice["finish_reason"])
            pieces += self._rest()
        return pieces

    def _rest(self) -> list[Piece]:
        return [self._keep(kind, piece) for kind, piece in self._splitter.end()]

    def _keep(self, kind: str, piece: str) -> Piece:
        if kind == "reasoning":
            self._reasoning.append(piece)
            return ("reasoning", piece, "")
        self._text.append(piece)
        return ("text", piece, "")

    def _call(self, delta: Any) -> list[Piece]:
        if not isinstance(delta, dict) or not isinstance(delta.get("function", {}), dict):
            log.warning("dropped a malformed tool call delta")
            return []
        index = delta.get("index")
        index = index if isinstance(index, int) else max(len(self._calls) - (0 if delta.get("id") else 1), 0)
        function = delta.get("function") or {}
        pieces: list[Piece] = []
        if index not in self._calls:
            self._calls[index] = {"id": self._unique(delta.get("id"), index), "name": "", "arguments": ""}
        call = self._calls[index]
        if name := function.get("name"):
            call["name"] += str(name)
            pieces.append(("tool", call["id"], call["name"]))
        if arguments := function.get("arguments"):
            call["arguments"] += str(arguments)
            pieces.append(("arguments", call["id"], str(arguments)))
        return pieces

    def _unique(self, given: Any, index: int) -> str:
        """Results are matched by this id, so two calls of one answer never share it, whatever the model sent."""
        found = str(given) if given else f"call_{index}"
        while found in self._ids:
            found += "_"
        self._ids.add(found)
        return found

    @property
    def ended(self) -> bool:
        return bool(self.finish_reason)

    def completion(self, duration_ms: int) -> Completion:
        """All that came so far."""
        self._rest()
        return Completion(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=[CompletedCall(**call) for _, call in sorted(self._calls.items())],
            finish_reason=self.finish_reason,
            usage=self.usage,
            model=self.model,
            duration_ms=duration_ms,
        )


def _reasoning(delta: dict[str, Any]) -> str:
    for name in ("reasoning", "reasoning_content"):
        if isinstance(delta.get(name), str) and delta[name]:
            return str(delta[name])
    details = delta.get("reasoning_details")
    if details is None:
        return ""
    if not isinstance(details, list):
        log.warning("dropped malformed reasoning details")
        return ""
    shown = (
        item.get("text") or item.get("summary") or ""
        for item in details
        if isinstance(item, dict) and item.get("type") in VISIBLE_REASONING
    )
    return "".join(piece for piece in shown if isinstance(piece, str))


def _usage(found: dict[str, Any]) -> Usage:
    prompt = found.get("prompt_tokens_details")
    answer = found.get("completion_tokens_details")
    return Usage(
        calls=1,
        prompt_tokens=_count(found.get("prompt_tokens")),
        completion_tokens=_count(found.get("completion_tokens")),
        cached_tokens=_count(prompt.get("cached_tokens")) if isinstance(prompt, dict) else 0,
        reasoning_tokens=_count(answer.get("reasoning_tokens")) if isinstance(answer, dict) else 0,
        cost_microdollars=microdollars(found.get("cost")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def microdollars(dollars: Any) -> int | None:
    """A price in USD as microdollars; None, and a line in the log, for what is no price."""
    if dollars is None:
        return None
    if isinstance(dollars, bool) or not isinstance(dollars, int | float) or not math.isfinite(dollars) or dollars < 0:
        log.warning("a model call's cost of %r is not booked: it is no price", dollars)
        return None
    return round(dollars * 1_000_000)
