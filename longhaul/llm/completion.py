"""Puts the chunks of a streamed Chat Completion together."""

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from longhaul.contracts import Usage
from longhaul.llm.think import ThinkSplitter

log = logging.getLogger(__name__)
VISIBLE_REASONING = (None, "reasoning.text", "reasoning.summary")
# What the columns hold; an endpoint's odd value must not make its answer impossible to store.
ID_MAX, NAME_MAX, REASON_MAX = 200, 200, 32
COUNT_MAX, DOLLARS_MAX = 2**31 - 1, 10**9


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

    Malformed parts of a chunk are logged and dropped: a provider's odd field must not end a turn. `taken`: ids of calls
    that the turn has made already, for some endpoints count from zero in each answer.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._ids = set(taken)
        self._splitter = ThinkSplitter()
        self.finish_reason = ""
        self.usage = Usage(calls=1)
        self.model = ""

    def feed(self, chunk: dict[str, Any]) -> list[Piece]:
        """The pieces in a chunk: text, reasoning, or a tool call's name or arguments with the call's id."""
        self.model = self.model or _plain(chunk.get("model"), NAME_MAX)
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
            self.finish_reason = _plain(choice["finish_reason"], REASON_MAX)
            pieces += self.rest()
        return pieces

    def rest(self) -> list[Piece]:
        """What is held back because it might become a tag; for a stream that ends before its end."""
        return [self._keep(kind, piece) for kind, piece in self._splitter.end()]

    def _keep(self, kind: str, piece: str) -> Piece:
        if kind == "reasoning":
            self._reasoning.append(piece)
            return ("reasoning", piece, "")
        self._text.append(piece)
        return ("text", piece, "")

    def _call(self, delta: Any) -> list[Piece]:
        if not isinstance(delta, dict) or not isinstance(delta.get("function") or {}, dict):
            log.warning("dropped a malformed tool call delta")
            return []
        function = delta.get("function") or {}
        given, arguments = _text(delta.get("id")), _text(function.get("arguments"))
        name = _plain(function.get("name"), NAME_MAX)
        call = self._continued(delta.get("index"), given, name)
        if call is None:
            call = _Call(index=_index(delta.get("index")), given=given, id=self._unique(given, len(self._calls)))
            self._calls.append(call)
        pieces: list[Piece] = []
        if name and name != call.name:  # some endpoints repeat the name in every delta
            call.name = (call.name + name)[:NAME_MAX]
            pieces.append(("tool", call.id, call.name))
        if arguments:
            call.arguments += arguments
            pieces.append(("arguments", call.id, arguments))
        return pieces

    def _continued(self, index: Any, given: str, name: str) -> "_Call | None":
        """The call that a delta goes on with: that of its index, else of its id, else the newest; None: it begins one.

        Another id with a name begins a new call even at a known index: some endpoints give all calls the index 0.
        """
        if _index(index) is not None:
            newest = self._newest(lambda call: call.index == index)
            another = newest is not None and name and given and newest.given and given != newest.given
            return None if another else newest
        newest = self._newest(lambda call: not given or call.given == given)
        if newest is not None and name and newest.arguments and (_whole(newest.arguments) or name != newest.name):
            return None
        return newest

    def _newest(self, which: Callable[["_Call"], bool]) -> "_Call | None":
        return next((call for call in reversed(self._calls) if which(call)), None)

    def _unique(self, given: str, place: int) -> str:
        """Results are matched by this id, so two calls of one turn never share it, whatever the model sent."""
        found = _plain(given, len(given)) or f"call_{place}"
        if len(found) > ID_MAX // 2:
            found = f"call_{hashlib.sha256(found.encode()).hexdigest()}"
        base, number = found, 1
        while found in self._ids:
            number += 1
            found = f"{base}_{number}"
        self._ids.add(found)
        return found

    @property
    def ended(self) -> bool:
        return bool(self.finish_reason)

    def completion(self, duration_ms: int) -> Completion:
        """All that came so far."""
        self.rest()
        return Completion(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=[CompletedCall(id=made.id, name=made.name, arguments=made.arguments) for made in self._calls],
            finish_reason=self.finish_reason,
            usage=self.usage,
            model=self.model,
            duration_ms=duration_ms,
        )


@dataclass
class _Call:
    """A call while it comes; `given` is the id as the endpoint wrote it."""

    index: int | None
    given: str
    id: str
    name: str = ""
    arguments: str = ""


def _index(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _whole(arguments: str) -> bool:
    try:
        orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return False
    return True


def _text(value: Any) -> str:
    """A field that should be a string; some endpoints send arguments as an object."""
    return value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()


def _plain(value: Any, most: int) -> str:
    """A name as a column can hold it."""
    return str(value or "").replace("\x00", "")[:most]


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
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= COUNT_MAX else 0


def microdollars(dollars: Any) -> int | None:
    """A price in USD as microdollars; None, and a line in the log, for what is no price."""
    if dollars is None:
        return None
    is_number = isinstance(dollars, int | float) and not isinstance(dollars, bool)
    if not is_number or not 0 <= dollars < DOLLARS_MAX:  # neither is true of NaN
        log.warning("a model call's cost of %r is not booked: it is no price", dollars)
        return None
    return round(float(dollars) * 1_000_000)
