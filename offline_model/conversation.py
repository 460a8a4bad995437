"""What is asked in a conversation, and what has been done about it already.

The model keeps no state: everything is read from the messages of the request, so that a retried request
gets the same answer from any process.
"""

import re
from dataclasses import dataclass
from itertools import groupby

from offline_model.english import read_script
from offline_model.request import Message
from offline_model.script import S, Script

_FOLLOW_UP = re.compile(r"<user_follow_up\b[^>]*>(.*?)(?:</user_follow_up>|\Z)", re.DOTALL)
#: What stands behind the text of a message; a block that was cut has no end.
_BLOCKS = re.compile(r"<(user_context|session_context|user_profile|conversation_summary)>.*?(?:</\1>|\Z)", re.DOTALL)
_SUMMARY = "\n<conversation_summary>"
_NUMBER = re.compile(r"^(\d{1,4})\. ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool, with its result once it has one. The arguments are text: some are wrong on purpose."""

    name: str
    arguments: str
    result: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """User messages that stand together, as text and as scripts, and all messages since."""

    text: str
    entries: list[Script]
    since: list[Message]

    def of(self, kind: type[S]) -> list[S]:
        """The steps of one kind of all entries, in order."""
        return [step for entry in self.entries for step in entry.of(kind)]

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


def open_tasks(messages: list[Message]) -> list[Task]:
    """The open tasks in order: the last original message and all follow-ups since the last finished answer."""
    groups: list[tuple[list[str], int]] = []  # texts, and the place behind them
    finished = place = 0
    for by_user, run in groupby(messages, key=lambda message: message.role == "user"):
        group = list(run)
        place += len(group)
        if by_user:
            texts = [message.text for message in group]
            # Behind the first message and a summary, the next message is a new one.
            groups.append((texts[1:] if len(texts) > 1 and _SUMMARY in texts[0] else texts, place))
        elif any(message.role == "assistant" and not message.tool_calls for message in group):
            finished = place
    tasks: list[Task] = []
    for texts, place in reversed(groups):
        if place <= finished:
            break
        entries = [entry for text in texts for entry in _entries(text)]
        tasks.insert(0, Task("\n".join(texts), entries, messages[place:]))
        if not all(entry.follow_up for entry in entries):
            break
    return tasks


def _entries(text: str) -> list[Script]:
    blocks = _FOLLOW_UP.findall(text)
    if blocks:
        return [read_script(entry, follow_up=True) for block in blocks for entry in _follow_ups(block)]
    return [read_script(_BLOCKS.sub("", text).strip())]


def _follow_ups(block: str) -> list[str]:
    """The numbered entries of a block; a number that is out of order is part of an entry."""
    entries: list[str] = []
    _, *parts = _NUMBER.split(block)
    for number, text in zip(parts[::2], parts[1::2], strict=True):
        if int(number) == len(entries) + 1:
            entries.append(text)
        elif entries:
            entries[-1] += f"{number}. {text}"
    return [entry.strip() for entry in entries] or [block.strip()]
