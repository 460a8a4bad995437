"""What is asked in a conversation, and what has been done about it already.

The model keeps no state: everything is read from the messages of the request, so that a retried request
gets the same answer, whichever process asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from offline_model.request import text_of

FOLLOW_UP = re.compile(r"<user_follow_up\b[^>]*>(.*?)(?:</user_follow_up>|\Z)", re.DOTALL)
_CONTEXT = re.compile(r"<(user_context|page_\w+|session_\w+|context|about_\w+)\b[^>]*>.*?</\1>", re.DOTALL)
_NUMBERED = re.compile(r"^\s*\[?(\d+)[.):\]]\s*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call to make; the arguments are raw text because some of them are wrong on purpose."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class DoneCall:
    """A call that was made earlier, with its result."""

    name: str
    arguments: str
    result: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing a person asked for, at its place in the conversation."""

    text: str
    position: int
    follow_up: bool


@dataclass(frozen=True, slots=True)
class Conversation:
    """The requests that are still open, the newest user text, and the calls made since."""

    messages: list[dict[str, Any]]
    entries: list[Entry]
    newest_text: str
    newest_start: int

    def answered(self, entry: Entry) -> bool:
        """Whether the model has spoken (text or calls) since the entry came."""
        return any(m["role"] == "assistant" for m in self.messages[entry.position :])

    def is_newest(self, entry: Entry) -> bool:
        return entry.position >= self.newest_start

    def rounds_since_original(self) -> int:
        """Number of model calls that this turn shows, as far as they are still in the context."""
        start = self.entries[0].position if self.entries else self.newest_start
        return sum(m["role"] == "assistant" for m in self.messages[start:])

    def calls_after(self, position: int) -> list[DoneCall]:
        """All calls with their results from a place on, in order."""
        return calls_in(self.messages[position:])

    def first_calls(self, entry: Entry) -> list[DoneCall]:
        """The calls of the first round after an entry: those it asked for."""
        for i in range(entry.position, len(self.messages)):
            if self.messages[i]["role"] == "assistant":
                end = i + 1
                while end < len(self.messages) and self.messages[end]["role"] == "tool":
                    end += 1
                return calls_in(self.messages[i:end])
        return []


def calls_in(messages: list[dict[str, Any]]) -> list[DoneCall]:
    """The tool calls of these messages, each with its result."""
    results = {m["tool_call_id"]: text_of(m.get("content")) for m in messages if m["role"] == "tool"}
    return [
        DoneCall(call["function"]["name"], call["function"]["arguments"], results.get(call["id"], ""))
        for message in messages
        if message["role"] == "assistant"
        for call in message.get("tool_calls") or ()
    ]


def read_conversation(messages: list[dict[str, Any]]) -> Conversation:
    """Find the open requests: the last original message, and the follow-ups, since the last finished answer."""
    users = [(i, text_of(m.get("content"))) for i, m in enumerate(messages) if m["role"] == "user"]
    if not users:
        return Conversation(messages, [], "", len(messages))
    newest_start = _group_start(messages, users[-1][0])
    originals = [i for i, text in users if not FOLLOW_UP.search(text)]
    start = _group_start(messages, originals[-1]) if originals else users[0][0]
    finished = max(
        (i for i, m in enumerate(messages) if m["role"] == "assistant" and not m.get("tool_calls")),
        default=-1,
    )
    entries = [entry for i, text in users if i >= start and i > finished for entry in _entries(text, i)]
    newest = "\n".join(text for i, text in users if i >= newest_start)
    return Conversation(messages, entries, newest, newest_start)


def follow_up_entries(block: str) -> list[str]:
    """The numbered entries of a block; numbers inside an entry that are out of order split nothing."""
    starts: list[tuple[int, int]] = []
    for match in _NUMBERED.finditer(block):
        if int(match[1]) == len(starts) + 1:
            starts.append((match.start(), match.end()))
    if not starts:
        return [block.strip()] if block.strip() else []
    ends = [s for s, _ in starts[1:]] + [len(block)]
    return [block[begin:end].strip() for (_, begin), end in zip(starts, ends, strict=True)]


def _group_start(messages: list[dict[str, Any]], index: int) -> int:
    """The first of the user messages that stand together, with nothing of the model's between them."""
    while index > 0 and messages[index - 1]["role"] == "user":
        index -= 1
    return index


def _entries(text: str, position: int) -> list[Entry]:
    blocks = FOLLOW_UP.findall(text)
    if blocks:
        return [Entry(e, position, follow_up=True) for block in blocks for e in follow_up_entries(block)]
    plain = _CONTEXT.sub("", text) if "</" in text else text
    return [Entry(plain.strip(), position, follow_up=False)]
