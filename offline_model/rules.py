"""The rules: what a text asks for. First the forms that own the whole text, then those that can be mixed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from offline_model.arithmetic import find_sums
from offline_model.conversation import ToolCall

_I = re.IGNORECASE
_IS = re.IGNORECASE | re.DOTALL
THINK = re.compile(r"^\s*think(-tags)?:\s*", _I)
_SHOW_ARGS = re.compile(r"\bshow args:\s*(\S+)[ \t]*(.*)", _IS)
_DELEGATE = re.compile(r"\bdelegate(?:\s+(slowly|detached))?:\s*(.+)", _IS)
_WRITE = re.compile(r"\bwrite\s+(?:file\s+([^\s:]+)|([^\s:]+\.\w+))\s*:\s?(.*)", _IS)
_READ = re.compile(r"\bread\s+(?:the\s+)?(?:file\s+(\S+)|(\S+\.\w+))", _I)
_LIST = re.compile(r"\blist\s+(?:the\s+|all\s+|my\s+)*files\b", _I)
_TIME = re.compile(r"\bwhat time\b|\bdate\b|\bwhat(?:'s| is) the time\b", _I)
_WAIT = re.compile(r"\bwait\s+(?:for\s+)?(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?)\b", _I)
ROUNDS = re.compile(r"\brounds\s+(\d+)\b", _I)
_SPEAK_BYTES = re.compile(r"\bspeak\s+bytes\s+(\d+)\b", _I)
_SPEAK = re.compile(r"\bspeak\s+(\d+)\b", _I)
_TINY = re.compile(r"\btiny\s+(\d+)\b", _I)

Delegation = Literal["", "wait", "slowly", "detached"]
Thinking = Literal["", "deltas", "tags"]
MAX_SPEECH = 100_000_000
#: The mixed forms are looked for at the beginning of a text only: searching them takes quadratic time.
MAX_READ = 4_000


@dataclass(frozen=True, slots=True)
class Speech:
    """An answer of an exact size: `words` N tokens, `bytes` N bytes in large chunks, `tiny` N small chunks."""

    kind: Literal["words", "bytes", "tiny"]
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What one text asks for: calls of the first round, more rounds, a way of delegating, a form of answer."""

    calls: tuple[ToolCall, ...] = ()
    rounds: int = 0
    delegation: Delegation = ""
    speech: Speech | None = None
    thinking: Thinking = ""
    forced: bool = False


def call(name: str, **arguments: Any) -> ToolCall:
    """A call with arguments as JSON."""
    return ToolCall(name, orjson.dumps(arguments).decode())


def read_plan(text: str) -> Plan:
    """Read what a text (directives taken out) asks for."""
    thinking: Thinking = ""
    if prefix := THINK.match(text):
        thinking = "tags" if prefix[1] else "deltas"
        text = text[prefix.end() :]
    if shown := _SHOW_ARGS.search(text):
        return Plan((ToolCall(shown[1], shown[2].strip()),), thinking=thinking, forced=True)
    if match := _DELEGATE.search(text):
        mode: Delegation = "wait"
        if match[1]:
            mode = "slowly" if match[1].lower() == "slowly" else "detached"
        return Plan(tuple(_sub_session(item, mode) for item in split_items(match[2])), 0, mode, None, thinking)
    if match := _WRITE.search(text):
        return Plan((call("write_file", path=match[1] or match[2], content=match[3]),), thinking=thinking)
    speech, rest = _speech(text[:MAX_READ])
    rounds = ROUNDS.search(rest)
    return Plan(
        calls=tuple(_mixed(ROUNDS.sub(" ", rest))),
        rounds=int(rounds[1]) if rounds else 0,
        speech=speech,
        thinking=thinking,
    )


def split_items(text: str) -> list[str]:
    """Split at the semicolons outside parentheses, and take one outer pair off each item."""
    items, depth, current = [], 0, ""
    for char in text:
        if char == ";" and depth == 0:
            items.append(current)
            current = ""
            continue
        depth = max(0, depth + (char == "(") - (char == ")"))
        current += char
    items.append(current)
    return [inner for item in items if (inner := _unwrapped(item.strip()))]


def _unwrapped(item: str) -> str:
    if not (item.startswith("(") and item.endswith(")")):
        return item
    depth = 0
    for i, char in enumerate(item):
        depth += (char == "(") - (char == ")")
        if depth == 0 and i < len(item) - 1:
            return item
    return item[1:-1].strip()


def _sub_session(prompt: str, mode: Delegation) -> ToolCall:
    if mode == "wait":
        return call("run_sub_session", prompt=prompt, wait_for_result=60)
    if mode == "slowly":
        return call("run_sub_session", prompt=prompt, wait_for_result=0)
    return call("run_sub_session", prompt=prompt, wait_for_result=0, detached=True)


def _speech(text: str) -> tuple[Speech | None, str]:
    """The form of the answer, and the text without the words that asked for it."""
    for pattern, kind in ((_SPEAK_BYTES, "bytes"), (_SPEAK, "words"), (_TINY, "tiny")):
        if match := pattern.search(text):
            size = min(int(match[1]), MAX_SPEECH)
            rest = text[: match.start()] + " " + text[match.end() :]
            return Speech(kind, size), rest  # type: ignore[arg-type]
    return None, text


def _mixed(text: str) -> list[ToolCall]:
    calls: list[ToolCall] = []
    if _LIST.search(text):
        calls.append(call("list_files", path="."))
    paths = [(match[1] or match[2]).rstrip("?!,;.\"'").lstrip("\"'") for match in _READ.finditer(text)]
    calls += [call("read_file", path=path) for path in paths]
    calls += [call("wait", seconds=_seconds(m[1], m[2].lower())) for m in _WAIT.finditer(text)]
    if _TIME.search(text):
        calls.append(call("current_time"))
    sums = find_sums(_READ.sub(" ", text))
    return calls + [call("calculator", expression=expression) for expression in sums]


def _seconds(number: str, unit: str) -> float | int:
    factor = 0.001 if unit.startswith(("ms", "milli")) else 60.0 if unit.startswith("m") else 1.0
    value = round(float(number) * factor, 3)
    return int(value) if value == int(value) else value
