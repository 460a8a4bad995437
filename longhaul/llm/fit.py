"""Cuts the messages of a request to the tokens that it may take.

What goes first: the oldest messages, up to the newest 20. Then long texts among the rest are cut, with a note. If even
that is too much, older messages of the rest go. What stays: the system prompt, the first user message and the newest
one, and a tool call always with its results.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from longhaul.llm import prompts
from longhaul.llm.tokens import tokens_of_message, tokens_of_text

Message = dict[str, Any]
NEWEST_KEPT = 20
#: A text is not cut to fewer tokens than this while older messages can go instead.
SHORTEST = 150
#: So much is kept of the newest message, whatever is asked for.
LEAST = 50


class Fitted(NamedTuple):
    """Messages, and their estimated tokens."""

    messages: list[Message]
    tokens: float


@dataclass(frozen=True)
class _Unit:
    """Messages that stay or go together: a message alone, or an assistant's with the results of its calls."""

    messages: tuple[Message, ...]
    pinned: bool
    tokens: float


@dataclass(frozen=True)
class _Text:
    """A text that may be cut: its place, its tokens, and how its beginning of so many characters is shown."""

    message: int
    call: int | None
    text: str
    tokens: float
    shown: Callable[[int], str]


def fit(messages: list[Message], max_tokens: float) -> Fitted:
    """`messages` (system first) as they are if they take at most `max_tokens`, else shortened to it.

    The result is larger only if the system prompt alone leaves less than `LEAST` tokens.
    """
    units = _units(messages)
    if _tokens(units) <= max_tokens:
        return Fitted(messages, _tokens(units))
    units = _without_oldest(units, _tokens(units) - max_tokens)
    while _tokens(units) > max_tokens:
        if shortened := _with_cut_texts(_messages(units), max_tokens):
            return shortened
        may_go = [place for place, unit in enumerate(units) if not unit.pinned]
        if len(may_go) < 2:
            return _newest_alone(messages, max_tokens)
        del units[may_go[0]]
    return Fitted(_messages(units), _tokens(units))


def _units(messages: Sequence[Message]) -> list[_Unit]:
    """Messages in units; pinned are system messages, and the first and the newest user message."""
    of_users = [place for place, message in enumerate(messages) if message["role"] == "user"]
    pinned = {*of_users[:1], *of_users[-1:]}
    units: list[_Unit] = []
    for place, message in enumerate(messages):
        tokens = tokens_of_message(message)
        if message["role"] == "tool" and units:
            last = units[-1]
            units[-1] = replace(last, messages=(*last.messages, message), tokens=last.tokens + tokens)
        else:
            units.append(_Unit((message,), place in pinned or message["role"] == "system", tokens))
    return units


def _tokens(units: Sequence[_Unit]) -> float:
    return sum(unit.tokens for unit in units)


def _messages(units: Sequence[_Unit]) -> list[Message]:
    return [message for unit in units for message in unit.messages]


def _without_oldest(units: list[_Unit], excess: float) -> list[_Unit]:
    """Units without the oldest, until `excess` tokens are gone or no more than the newest messages are left."""
    left = sum(len(unit.messages) for unit in units if not unit.pinned)
    kept: list[_Unit] = []
    for unit in units:
        if unit.pinned or excess <= 0 or left - len(unit.messages) < NEWEST_KEPT:
            kept.append(unit)
        else:
            excess -= unit.tokens
            left -= len(unit.messages)
    return kept


def _with_cut_texts(messages: list[Message], max_tokens: float) -> Fitted | None:
    """Messages whose longest texts are cut to one length; None if that length were under `SHORTEST`."""
    texts = [text for place, message in enumerate(messages) for text in _cuttable(place, message)]
    fixed = sum(map(tokens_of_message, messages)) - sum(text.tokens for text in texts)
    most = _common_length([text.tokens for text in texts], max_tokens - fixed)
    if most < SHORTEST:
        return None
    cut = list(messages)
    for text in texts:
        if text.tokens > most:
            cut[text.message] = _with_text(cut[text.message], text, _beginning(text, most))
    return Fitted(cut, sum(map(tokens_of_message, cut)))


def _common_length(lengths: list[float], room: float) -> float:
    """The length to which the longest are cut so that all together take `room`."""
    left = len(lengths)
    for length in sorted(lengths):
        if length * left > room:
            return max(0.0, room / left)
        room -= length
        left -= 1
    return room if left else max(lengths, default=0.0)


def _cuttable(place: int, message: Message) -> Iterator[_Text]:
    content = message.get("content")
    if isinstance(content, str) and content and message["role"] != "system":

        def shown(length: int) -> str:
            return content[:length] + _note(message, content, length)

        yield _Text(place, None, content, tokens_of_text(content), shown)
    for number, call in enumerate(message.get("tool_calls") or ()):
        arguments: str = call["function"]["arguments"]

        def cut_arguments(length: int, arguments: str = arguments) -> str:
            return orjson.dumps({"cut": arguments[:length]}).decode()  # endpoints want an object

        yield _Text(place, number, arguments, tokens_of_text(arguments), cut_arguments)


def _note(message: Message, content: str, length: int) -> str:
    if message["role"] != "tool":
        return prompts.CUT_TEXT.format(left=len(content) - length)
    # Our markup in a result is escaped, which makes it longer; rather repeat some characters than skip one.
    offset = length - 3 * content[:length].count("&lt;")
    return prompts.CUT_RESULT.format(shown=offset, call_id=message["tool_call_id"])


def _beginning(text: _Text, most: float) -> str:
    """The beginning of a text with its note, in at most `most` tokens."""
    length = int(len(text.text) * most / text.tokens)
    while length > 0:
        shown = text.shown(length)
        tokens = tokens_of_text(shown)
        if tokens <= most:
            return shown
        length = int(length * min(0.99, most / tokens))
    return text.shown(0)


def _with_text(message: Message, text: _Text, shown: str) -> Message:
    if text.call is None:
        return {**message, "content": shown}
    calls = list(message["tool_calls"])
    call = calls[text.call]
    calls[text.call] = {**call, "function": {**call["function"], "arguments": shown}}
    return {**message, "tool_calls": calls}


def _newest_alone(messages: list[Message], max_tokens: float) -> Fitted:
    """The system prompt and the newest user message, cut: for when calls and results have no room at all."""
    kept = [message for message in messages if message["role"] == "system"]
    newest = next((message for message in reversed(messages) if message["role"] == "user"), None)
    content = str((newest or {}).get("content") or "")
    room = max(LEAST, max_tokens - sum(map(tokens_of_message, kept)) - tokens_of_text(prompts.CUT_WORK) - 10)
    if tokens_of_text(content) > room:
        left_out = {"role": "user", "content": content}
        content = _beginning(next(_cuttable(0, left_out)), room)
    fitted = [*kept, {"role": "user", "content": content + prompts.CUT_WORK}]
    return Fitted(fitted, sum(map(tokens_of_message, fitted)))
