"""What is asked in a conversation, and what has been done about it already.

The model keeps no state: everything is read from the messages of the request, so that a retried request
gets the same answer from any process.
"""

import re
from dataclasses import dataclass

from offline_model.english import read_script
from offline_model.request import Message
from offline_model.script import S, Script

_FOLLOW_UP = re.compile(r"<user_follow_up\b[^>]*>(.*?)(?:</user_follow_up>|\Z)", re.DOTALL)
_CONTEXT = re.compile(r"<(user_context|page_\w+|session_\w+|context|about_\w+)\b[^>]*>.*?</\1>", re.DOTALL)
_NUMBERED = re.compile(r"^\s*\[?(\d{1,4})[.):\]]\s*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool, with its result once it has one. The arguments are text: some are wrong on purpose."""

    name: str
    arguments: str
    result: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a person; a follow-up was typed while the model was at work."""

    script: Script
    follow_up: bool


@dataclass(frozen=True, slots=True)
class Task:
    """User messages that stand together, and all messages since."""

    entries: list[Entry]
    since: list[Message]

    def of(self, kind: type[S]) -> list[S]:
        """The steps of one kind of all entries, in order."""
        return [step for entry in self.entries for step in entry.script.of(kind)]

    @property
    def rounds(self) -> int:
        """How many answers of the model have followed, as far as they are still in the context."""
        return sum(message.role == "assistant" for message in self.since)

    def calls(self, *, first_round_only: bool = False) -> list[ToolCall]:
        """The calls that were made since, with their results."""
        results = {message.tool_call_id: message.text for message in self.since if message.role == "tool"}
        answers = [message for message in self.since if message.role == "assistant"]
        return [
            ToolCall(call.function.name, call.function.arguments, results.get(call.id, ""))
            for answer in answers[: 1 if first_round_only else None]
            for call in answer.tool_calls or ()
        ]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The tasks that are still open, in order, and the newest text of a person as it was sent."""

    tasks: list[Task]
    newest_text: str


def read_conversation(messages: list[Message]) -> Conversation:
    """Find the open tasks: the last original message and all follow-ups since the last finished answer."""
    groups: list[tuple[list[str], int]] = []  # texts, and the place behind them
    finished = 0
    for place, message in enumerate(messages, start=1):
        if message.role == "user":
            texts = groups.pop()[0] if groups and groups[-1][1] == place - 1 else []
            groups.append(([*texts, message.text], place))
        elif message.role == "assistant" and not message.tool_calls:
            finished = place
    tasks: list[Task] = []
    for texts, place in reversed(groups):
        if place <= finished:
            break
        entries = [entry for text in texts for entry in _entries(text)]
        tasks.insert(0, Task(entries, messages[place:]))
        if not all(entry.follow_up for entry in entries):
            break
    return Conversation(tasks, "\n".join(groups[-1][0]) if groups else "")


def _entries(text: str) -> list[Entry]:
    blocks = _FOLLOW_UP.findall(text)
    if blocks:
        return [Entry(read_script(entry), follow_up=True) for block in blocks for entry in follow_up_entries(block)]
    plain = _CONTEXT.sub("", text) if "</" in text else text
    return [Entry(read_script(plain.strip()), follow_up=False)]


def follow_up_entries(block: str) -> list[str]:
    """The numbered entries of a block; a number that is out of order is part of an entry."""
    starts: list[tuple[int, int]] = []
    for match in _NUMBERED.finditer(block):
        if int(match[1]) == len(starts) + 1:
            starts.append((match.start(), match.end()))
    if not starts:
        return [block.strip()] if block.strip() else []
    ends = [start for start, _ in starts[1:]] + [len(block)]
    return [block[begin:end].strip() for (_, begin), end in zip(starts, ends, strict=True)]
