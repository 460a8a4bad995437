"""Assembles a streamed Chat Completion: its text, reasoning and tool calls, what it used and what it cost."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from longhaul.contracts import Usage
from longhaul.llm.responses import ENCRYPTED, EncryptedReasoning
from longhaul.streams.blocks import Block

log = logging.getLogger(__name__)
VISIBLE_REASONING = (None, "reasoning.text", "reasoning.summary")
OPENING_TAGS = ("<think>", "<thinking>")
CLOSING_TAGS = ("</think>", "</thinking>")
#: Where endpoints say, among the details of a prompt's tokens, how many of them went into the provider's cache.
CACHE_CREATION = ("cache_creation_tokens", "cache_creation_input_tokens", "cache_write_tokens")
# The columns' limits; an endpoint's odd value must not make its answer impossible to store.
ID_MAX, NAME_MAX, REASON_MAX = 200, 200, 32
COUNT_MAX, DOLLARS_MAX = 2**31 - 1, 10**9
ENCRYPTED_MAX_CHARS = 1_000_000


class CompletedCall(BaseModel):
    """A tool call as the model wrote it; `arguments` is its raw string."""

    id: str
    name: str
    arguments: str


class Stretch(BaseModel):
    """So many characters of an answer's text or reasoning; reasoning took `duration_ms`."""

    kind: Literal["text", "reasoning"]
    length: int
    duration_ms: int = 0


class Completion(BaseModel):
    """A whole answer; usually small enough for a heartbeat's checkpoint.

    `is_estimated`: its endpoint sent no usage. `response_id`: the endpoint's name of it.
    `estimated_tokens`: what the prompt was estimated to take, which calibrates the next estimate; 0: not known.
    `compaction_due`: the conversation has become too long to be given to the model as it is.
    `stretches`: of what `text` and `reasoning` consist, in the order in which they came. Checkpoints of older versions
    have none.
    `encrypted`: reasoning that only the endpoint can read. Checkpoints leave it out: it stays in the database alone.
    """

    text: str = ""
    reasoning: str = ""
    stretches: list[Stretch] = []
    tool_calls: list[CompletedCall] = []
    finish_reason: str = ""
    usage: Usage = Usage()
    is_estimated: bool = False
    model: str = ""
    response_id: str = ""
    duration_ms: int = 0
    estimated_tokens: int = 0
    compaction_due: bool = False
    encrypted: list[EncryptedReasoning] = Field(default=[], exclude=True)

    def blocks(self) -> list[Block]:
        """Text and reasoning in their order."""
        if not self.stretches:
            whole = (Block("reasoning", self.reasoning), Block("text", self.text))
            return [block for block in whole if block.text]
        left = {"text": self.text, "reasoning": self.reasoning}
        blocks: list[Block] = []
        for stretch in self.stretches:
            written = left[stretch.kind]
            left[stretch.kind] = written[stretch.length :]
            duration = stretch.duration_ms if stretch.kind == "reasoning" else None
            blocks.append(Block(stretch.kind, written[: stretch.length], duration))
        return blocks


#: Kind, content, and what else there is: `reasoned` ends a stretch of reasoning and has its milliseconds.
Piece = tuple[Literal["text", "reasoning", "reasoned", "tool", "arguments"], str, str]


class Assembler:
    """Feed it decoded chunks; it returns the pieces to show and keeps the whole.

    Malformed parts of a chunk are logged and dropped: a provider's odd field must not end a turn. `taken`: ids of the
    turn's earlier tool calls, because some endpoints count from zero in each answer.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._stretches: list[Stretch] = []
        self._reasons_since: float | None = None
        self._calls: list[_Call] = []
        self._ids = set(taken)
        self._splitter = ReasoningSplitter()
        self._encrypted: list[EncryptedReasoning] = []
        self.finish_reason = ""
        self.usage: Usage | None = None
        self.model = ""
        self.id = ""

    def feed(self, chunk: dict[str, Any]) -> list[Piece]:
        """The pieces in a chunk: text, reasoning, or a tool call's name or arguments with the call's id."""
        self.model = self.model or _plain(chunk.get("model"), NAME_MAX)
        self.id = self.id or _plain(chunk.get("id"), ID_MAX)
        if isinstance(chunk.get("usage"), dict):
            self.usage = _usage(chunk["usage"])
        if isinstance(encrypted := chunk.get(ENCRYPTED), EncryptedReasoning):
            self._keep_encrypted(encrypted)
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return []
        choice = choices[0]
        pieces: list[Piece] = []
        delta = choice.get("delta")
        if isinstance(delta, dict):
            if reasoning := _reasoning(delta):
                pieces += self._keep("reasoning", reasoning)
            content = delta.get("content")
            if isinstance(content, str) and content:
                for kind, piece in self._splitter.feed(content):
                    pieces += self._keep(kind, piece)
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                pieces += self._call(call)
        if choice.get("finish_reason"):
            self.finish_reason = _plain(choice["finish_reason"], REASON_MAX)
            pieces += self.rest()
        return pieces

    def rest(self) -> list[Piece]:
        """The end of open reasoning, behind text that was held back because it might have become a tag."""
        pieces = [piece for kind, held in self._splitter.end() for piece in self._keep(kind, held)]
        return [*pieces, *self._end_reasoning()]

    def _keep(self, kind: str, piece: str) -> list[Piece]:
        if kind == "reasoning":
            if self._reasons_since is None:
                self._reasons_since = time.monotonic()
                self._stretches.append(Stretch(kind="reasoning", length=0))
            self._reasoning.append(piece)
            self._stretches[-1].length += len(piece)
            return [("reasoning", piece, "")]
        ended = self._end_reasoning()
        if not self._stretches or self._stretches[-1].kind != "text":
            self._stretches.append(Stretch(kind="text", length=0))
        self._text.append(piece)
        self._stretches[-1].length += len(piece)
        return [*ended, ("text", piece, "")]

    def _keep_encrypted(self, encrypted: EncryptedReasoning) -> None:
        kept = sum(len(one.item["encrypted_content"]) for one in (*self._encrypted, encrypted))
        if kept > ENCRYPTED_MAX_CHARS:
            log.warning("dropped encrypted reasoning of over %d characters", ENCRYPTED_MAX_CHARS)
            return
        self._encrypted.append(encrypted)

    def _end_reasoning(self) -> list[Piece]:
        if self._reasons_since is None:
            return []
        duration_ms = round((time.monotonic() - self._reasons_since) * 1000)
        self._stretches[-1].duration_ms, self._reasons_since = duration_ms, None
        return [("reasoned", "", str(duration_ms))]

    def _call(self, delta: Any) -> list[Piece]:
        if not isinstance(delta, dict) or not isinstance(delta.get("function") or {}, dict):
            log.warning("dropped a malformed tool call delta")
            return []
        function = delta.get("function") or {}
        sent_id, arguments = _text(delta.get("id")), _text(function.get("arguments"))
        name = _plain(function.get("name"), NAME_MAX)
        call = self._continued(delta.get("index"), sent_id, name)
        if call is None:
            call = _Call(index=_index(delta.get("index")), sent_id=sent_id, id=self._unique(sent_id, len(self._calls)))
            self._calls.append(call)
        pieces: list[Piece] = self._end_reasoning()
        if name and name != call.name:  # some endpoints repeat the name in every delta
            call.name = (call.name + name)[:NAME_MAX]
            pieces.append(("tool", call.id, call.name))
        if arguments:
            call.arguments += arguments
            pieces.append(("arguments", call.id, arguments))
        return pieces

    def _continued(self, index: Any, sent_id: str, name: str) -> "_Call | None":
        """The call that a delta continues: by its index, else by its id, else the newest. None: it begins a call.

        Another id with a name begins a new call even at a known index: some endpoints give all calls the index 0.
        """
        if _index(index) is not None:
            newest = self._newest(lambda call: call.index == index)
            another = newest is not None and name and sent_id and newest.sent_id and sent_id != newest.sent_id
            return None if another else newest
        newest = self._newest(lambda call: not sent_id or call.sent_id == sent_id)
        if newest is not None and name and newest.arguments and (_whole(newest.arguments) or name != newest.name):
            return None
        return newest

    def _newest(self, which: Callable[["_Call"], bool]) -> "_Call | None":
        return next((call for call in reversed(self._calls) if which(call)), None)

    def _unique(self, sent_id: str, position: int) -> str:
        """Results are matched by this id, so two calls of one turn never share it, even if the model repeats one."""
        base = _plain(sent_id, len(sent_id)) or f"call_{position}"
        if len(base) > ID_MAX // 2:
            base = f"call_{hashlib.sha256(base.encode()).hexdigest()}"
        unique, number = base, 1
        while unique in self._ids:
            number += 1
            unique = f"{base}_{number}"
        self._ids.add(unique)
        return unique

    @property
    def ended(self) -> bool:
        return bool(self.finish_reason)

    def completion(self, duration_ms: int) -> Completion:
        """Everything received so far."""
        self.rest()
        return Completion(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            stretches=self._stretches,
            tool_calls=[CompletedCall(id=made.id, name=made.name, arguments=made.arguments) for made in self._calls],
            finish_reason=self.finish_reason,
            usage=self.usage or Usage(calls=1),
            is_estimated=self.usage is None,
            model=self.model,
            response_id=self.id,
            duration_ms=duration_ms,
            encrypted=self._encrypted,
        )


class ReasoningSplitter:
    """Takes `<think>…</think>` and `<thinking>…</thinking>` out of a model's text, also when chunks split a tag."""

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False

    def feed(self, delta: str) -> list[tuple[str, str]]:
        """`("text" | "reasoning", piece)` for everything that can be decided so far."""
        self._held += delta
        pieces: list[tuple[str, str]] = []
        while self._held:
            tags = CLOSING_TAGS if self._thinking else OPENING_TAGS
            at, tag = _first(self._held, tags)
            if tag:
                self._emit(pieces, self._held[:at])
                self._held = self._held[at + len(tag) :]
                self._thinking = not self._thinking
                continue
            keep = _possible_tag(self._held, tags)
            self._emit(pieces, self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]
            break
        return pieces

    def end(self) -> list[tuple[str, str]]:
        """What was held back because it might have become a tag."""
        pieces: list[tuple[str, str]] = []
        self._emit(pieces, self._held)
        self._held = ""
        return pieces

    def _emit(self, pieces: list[tuple[str, str]], text: str) -> None:
        if text:
            pieces.append(("reasoning" if self._thinking else "text", text))


@dataclass
class _Call:
    """A call that is being received; `sent_id` is the id as the endpoint wrote it."""

    index: int | None
    sent_id: str
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
    """A value as a text column can hold it, `most` characters at most."""
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


def _usage(sent: dict[str, Any]) -> Usage:
    prompt = sent.get("prompt_tokens_details")
    details = prompt if isinstance(prompt, dict) else {}
    answer = sent.get("completion_tokens_details")
    return Usage(
        calls=1,
        prompt_tokens=count(sent.get("prompt_tokens")),
        completion_tokens=count(sent.get("completion_tokens")),
        cached_tokens=count(details.get("cached_tokens")) or count(sent.get("cache_read_input_tokens")),
        cache_creation_tokens=_cache_creation(sent, details),
        reasoning_tokens=count(answer.get("reasoning_tokens")) if isinstance(answer, dict) else 0,
        cost_microdollars=microdollars(sent.get("cost")),
    )


def _cache_creation(sent: dict[str, Any], details: dict[str, Any]) -> int:
    """The tokens that the provider has written to its cache, in Anthropic's field, LiteLLM's or OpenRouter's."""
    named = (details.get(name) for name in CACHE_CREATION)
    return next(filter(None, map(count, (sent.get("cache_creation_input_tokens"), *named))), 0)


def count(value: Any) -> int:
    """A number of tokens as a column can hold it; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= COUNT_MAX else 0


def microdollars(dollars: Any) -> int | None:
    """A price in USD as microdollars; None, and a line in the log, for a value that cannot be a price."""
    if dollars is None:
        return None
    is_number = isinstance(dollars, int | float) and not isinstance(dollars, bool)
    if not is_number or not 0 <= dollars < DOLLARS_MAX:  # neither is true of NaN
        log.warning("a model call's cost of %r is not booked: it cannot be a price", dollars)
        return None
    return round(float(dollars) * 1_000_000)


def _first(text: str, tags: tuple[str, ...]) -> tuple[int, str]:
    places = [(text.find(tag), tag) for tag in tags if tag in text]
    return min(places) if places else (-1, "")


def _possible_tag(text: str, tags: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the beginning of a tag."""
    at = text.rfind("<")
    rest = text[at:] if at >= 0 else ""
    return len(rest) if rest and any(tag.startswith(rest) for tag in tags) else 0
