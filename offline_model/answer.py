"""The stand-in's mind: from a request to the answer, with no state and no chance in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from offline_model import phrases
from offline_model.conversation import Conversation, DoneCall, Entry, ToolCall
from offline_model.delegation import joined_answers, json_object, polls
from offline_model.directives import strip_directives
from offline_model.request import ChatRequest, text_of
from offline_model.rules import ROUNDS, Plan, Speech, call, read_plan
from offline_model.special import special_answer

_ROUND = re.compile(r"(\d+)\+0\b")
_BYTES = 64 * 1024


@dataclass(slots=True)
class Answer:
    """What is streamed: reasoning, then text, then tool calls; `paced` False means no token delay."""

    reasoning: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    finish: str = "stop"
    paced: bool = True
    special: bool = False


@dataclass(slots=True)
class _Open:
    """An entry with its plan, and what is still to be called for it."""

    entry: Entry
    plan: Plan
    text: str
    calls: list[ToolCall]
    missing: list[str]


def decide(request: ChatRequest, conversation: Conversation) -> Answer:
    """Answer a request."""
    if (text := special_answer(request)) is not None:
        return Answer(pieces=phrases.words(text), special=True)
    work = [_look_at(entry, conversation, request.tools) for entry in conversation.entries]
    calls = [c for one in work for c in one.calls]
    if not any(one.plan.rounds for one in work):
        calls += _rounds_from_trimmed_context(request, conversation)
    fresh = [one.text for one in work if one.entry.follow_up and conversation.is_newest(one.entry)]
    already_said = bool(fresh) and any(conversation.answered(one.entry) for one in work[-len(fresh) :])
    greeting = phrases.acknowledgement(fresh) if fresh and not already_said else ""
    answer = Answer(calls=calls, finish="tool_calls" if calls else "stop")
    if calls:
        answer.pieces = phrases.words(greeting)
    else:
        _conclude(answer, greeting, work, conversation)
    _think(answer, work, request.reasoning)
    return answer


def _look_at(entry: Entry, conversation: Conversation, tools: frozenset[str]) -> _Open:
    text = strip_directives(entry.text)
    plan = read_plan(text)
    calls: list[ToolCall] = []
    if not conversation.answered(entry):
        calls += plan.calls
        if plan.rounds:
            calls.append(call("calculator", expression="1+0"))
    else:
        done = conversation.calls_after(entry.position)
        if plan.delegation:
            calls += polls(plan, done)
        if plan.rounds and (last := _last_round(done)) < plan.rounds:
            calls.append(call("calculator", expression=f"{last + 1}+0"))
    missing = [] if plan.forced else sorted({c.name for c in calls if c.name not in tools})
    return _Open(entry, plan, text, [c for c in calls if c.name not in missing], missing)


def _last_round(done: list[DoneCall]) -> int:
    """The last round made, read from the arguments as they stand, for they may be malformed."""
    return max((int(m[1]) for c in done if (m := _ROUND.search(c.arguments))), default=0)


def _rounds_from_trimmed_context(request: ChatRequest, conversation: Conversation) -> list[ToolCall]:
    """Go on with `rounds N` when the message that asked for it was compacted away: N is in the summary."""
    tail = conversation.messages[conversation.newest_start :] or conversation.messages
    last = next((m for m in reversed(tail) if m["role"] == "assistant"), None)
    calls = (last or {}).get("tool_calls") or []
    rounds = [int(m[1]) for c in calls if (m := _ROUND.search(c["function"]["arguments"]))]
    if not rounds or "calculator" not in request.tools:
        return []
    people = [m for m in request.messages if m["role"] not in ("tool", "assistant")]
    wanted = [int(n) for m in people for n in ROUNDS.findall(text_of(m.get("content")))]
    return [call("calculator", expression=f"{max(rounds) + 1}+0")] if max(rounds) < max(wanted[-1:], default=0) else []


def _conclude(answer: Answer, greeting: str, work: list[_Open], conversation: Conversation) -> None:
    """The final text; a speech of an exact size stands alone when nothing else must be said."""
    parts: list[str] = []
    speeches: list[Speech] = []
    for one in work:
        if one.plan.speech:
            speeches.append(one.plan.speech)
            continue
        said = _result(one, conversation)
        known = one.entry.follow_up and (bool(greeting) or conversation.answered(one.entry))
        if said or not known:
            parts.append(said or phrases.echo(one.text))
    if greeting:
        parts.insert(0, greeting)
    if parts or not speeches:
        answer.pieces = phrases.words(" ".join([*(parts or ["Done."]), phrases.SUFFIX]))
    for speech in speeches:
        answer.pieces += ["\n"] if answer.pieces else []
        answer.pieces += spoken(speech)
        answer.paced = answer.paced and speech.kind != "tiny"


def _result(one: _Open, conversation: Conversation) -> str:
    """What became of an entry's calls, in words."""
    if one.missing:
        return f"I have no tool {' or '.join(one.missing)} here."
    if one.plan.delegation:
        return joined_answers(one.plan, conversation.calls_after(one.entry.position))
    said = []
    made = conversation.first_calls(one.entry)
    for wanted in one.plan.calls:
        match = next((d for d in made if (d.name, d.arguments) == (wanted.name, wanted.arguments)), None)
        match = match or next((d for d in made if d.name == wanted.name), made[0] if made else None)
        if match:
            made.remove(match)
            said.append(_describe(wanted, match))
    if one.plan.rounds:
        last = _last_round(conversation.calls_after(one.entry.position))
        said.append(f"{last} of {one.plan.rounds} rounds are done.")
    return " ".join(said)


def _describe(wanted: ToolCall, done: DoneCall) -> str:
    result = json_object(done.result)
    value = next((result[k] for k in ("result", "value", "output", "answer") if k in result), done.result)
    shown = phrases.shortened(str(value), 200)
    expression = json_object(wanted.arguments).get("expression")
    if expression and re.fullmatch(r"-?[\d.,]+(e[+-]?\d+)?", shown, re.IGNORECASE):
        return f"{expression} = {shown}."
    return f"{wanted.name}: {shown or 'no output'}" + ("" if shown.endswith((".", "…")) else ".")


def spoken(speech: Speech) -> list[str]:
    """A text of an exact size, in the chunks in which it is sent."""
    if speech.kind == "words":
        return [f" w{i}" if i > 1 else "w1" for i in range(1, speech.size + 1)]
    if speech.kind == "tiny":
        return ["abcdefghij"[i % 10] for i in range(speech.size)]
    block = "0123456789abcde\n" * (_BYTES // 16)
    full, rest = divmod(speech.size, _BYTES)
    return [block] * full + ([block[:rest]] if rest else [])


def _think(answer: Answer, work: list[_Open], asked: bool) -> None:
    kinds = {one.plan.thinking for one in work}
    if "tags" in kinds:
        tagged = ["<th", "ink>", "The person asks ", "for an answer", ".</thi", "nk>"]
        answer.pieces = tagged + answer.pieces
    elif asked or "deltas" in kinds:
        step = f"I call {', '.join(c.name for c in answer.calls)[:200]}" if answer.calls else "I answer"
        topic = phrases.shortened(work[-1].text, 60) if work else "nothing new"
        answer.reasoning = phrases.words(f"The person asks: {topic} {step} now.")
