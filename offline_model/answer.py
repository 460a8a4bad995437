"""From a request to the answer, with no state and no chance in it."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from offline_model import english
from offline_model.conversation import Task, ToolCall
from offline_model.request import ChatRequest
from offline_model.script import Call, Delegate, Fault, Mode, Pace, Recall, Rounds, Say, Speak, Think, json_object

RUN, GET = "run_sub_session", "get_sub_session_result"
_HOW_TO_RUN: dict[Mode, dict[str, Any]] = {
    "wait": {"wait_for_result": 60},
    "slowly": {"wait_for_result": 0},
    "detached": {"wait_for_result": 0, "detached": True},
}
_SUMMARISE = re.compile(r"^Summarise the conversation\b")
_TITLE = re.compile(r"\btitle\b", re.IGNORECASE)
_ROUND = re.compile(r"(\d{1,9})\+0\b")
_SPOKEN_BYTES = "0123456789abcde\n" * 4096
_RESPONSE_SHOWN = 2_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent: reasoning, then text in pieces, then tool calls; and how the messages ask for it to be sent."""

    reasoning: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    finish: str = "stop"
    pace: Pace = field(default_factory=Pace)
    faults: list[Fault] = field(default_factory=list)


def decide(request: ChatRequest, tasks: list[Task], pace: Pace) -> Answer:
    """Answer a request with these open tasks; the pace holds where the messages ask for no other."""
    tools = request.tool_names
    system = [message.text for message in request.messages if message.role in ("system", "developer")]
    if not tools and any(_SUMMARISE.search(text) for text in system):
        return Answer(pieces=english.words(english.summary_of(request.messages[-1].text)), pace=pace)
    if not tools and any(_TITLE.search(text) for text in system):
        first = next((message.text for message in request.messages if message.role == "user"), "")
        return Answer(pieces=english.words(english.title_of(first)), pace=pace)
    newest = tasks[-1] if tasks else Task("", [], [])
    if newest.of(Recall):
        first = next(message.text for message in request.messages if message.role == "user")
        said = f"Your first message was: “{english.shortened(first, 80)}”. {english.SUFFIX}"
        return Answer(pieces=english.words(said), pace=pace)
    # The plain calls of the newest task come first: `_report` finds their results by place.
    calls = [call for task in reversed(tasks) for call in _calls_of(task, tools)]
    follow_ups = [f"“{english.shortened(entry.text, 60)}”" for entry in newest.entries if entry.follow_up]
    greeting = f"About your follow-up: {'; '.join(follow_ups)}." if follow_ups and not newest.rounds else ""
    thoughts = [step.think for task in tasks for step in task.of(Think)]
    if request.wants_reasoning and not thoughts:
        thoughts = [english.thoughts(newest.entries[-1].text if tasks else "nothing new.")]
    for step in newest.of(Pace):
        pace = step.over(pace)
    round_number = tasks[0].rounds + 1 if tasks else 1
    return Answer(
        reasoning=english.words(" ".join(thoughts)),
        pieces=english.words(greeting) if calls else _conclusion(tasks, greeting, tools),
        calls=calls,
        finish="tool_calls" if calls else "stop",
        pace=pace,
        faults=[step for step in newest.of(Fault) if step.round in (None, round_number)],
    )


def _tool_call(name: str, arguments: dict[str, Any] | str) -> ToolCall:
    return ToolCall(name, arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode())


def _calls_of(task: Task, tools: frozenset[str]) -> list[ToolCall]:
    """What is to be called for a task now: all its calls at first, then polls and further rounds."""
    if not task.rounds:
        calls = [_tool_call(step.call, step.arguments) for step in _plain_calls(task, tools)]
        if RUN in tools:
            calls += [_tool_call(RUN, {"prompt": sub.prompt, **_HOW_TO_RUN[sub.mode]}) for sub in _sub_sessions(task)]
    else:
        unfinished = [sub for sub in _sub_sessions(task) if sub.unfinished and GET in tools]
        calls = [_tool_call(GET, {"sub_session_id": sub.id, "wait_if_running": 60}) for sub in unfinished]
    if (rounds := _rounds_wanted(task)) is not None and (done := _last_round(task, rounds)) < rounds.rounds:
        expression, name = f"{done + 1}+0", _tool_of(rounds)
        call = _tool_call(name, {"path": rounds.read} if rounds.read else {"expression": expression})
        calls += [call] if name in tools else []
    return calls


def _plain_calls(task: Task, tools: frozenset[str]) -> list[Call]:
    return [step for step in task.of(Call) if step.call in tools or not step.optional]


def _rounds_wanted(task: Task) -> Rounds | None:
    return max(task.of(Rounds), key=lambda step: step.rounds, default=None)


def _tool_of(rounds: Rounds) -> str:
    return "read_file" if rounds.read else "calculator"


def _last_round(task: Task, rounds: Rounds) -> int:
    """The last round made, read from the arguments as they stand, for they may be malformed."""
    if rounds.read:
        return sum(call.name == "read_file" for call in task.calls())
    return max((int(match[1]) for call in task.calls() if (match := _ROUND.search(call.arguments))), default=0)


def _conclusion(tasks: list[Task], greeting: str, tools: frozenset[str]) -> list[str]:
    """The final text. A speech stands alone when nothing else must be said."""
    speeches = [step for task in tasks for step in task.of(Speak)]
    said = [greeting] if greeting else []
    said += [text for task in tasks if not task.of(Speak) for text in _report(task, tools)]
    pieces = english.words(" ".join([*(said or ["Done."]), english.SUFFIX])) if said or not speeches else []
    for speech in speeches:
        pieces += ["\n"] if pieces else []
        pieces += _spoken(speech)
    return pieces


def _report(task: Task, tools: frozenset[str]) -> list[str]:
    """What became of a task, in sentences."""
    said = [step.say for step in task.of(Say)]
    wanted = {step.call for step in task.of(Call) if step.optional}
    wanted |= {RUN} if task.of(Delegate) else set()
    wanted |= {_tool_of(step) for step in task.of(Rounds)}
    if missing := sorted(wanted - tools):
        said.append(f"I have no tool {' or '.join(missing)} here.")
    made = task.calls(first_round_only=True)[: len(_plain_calls(task, tools))]
    said += [_result(call) for call in made]
    if task.of(Delegate) and RUN in tools:
        answers = [sub.answer() for sub in _sub_sessions(task) if sub.text is not None]
        numbered = [f"{number}. {text}" for number, text in enumerate(answers, 1)]
        said.append("\n".join(numbered if len(answers) > 1 else answers) or "No sub-session was started.")
    if rounds := _rounds_wanted(task):
        said.append(f"{_last_round(task, rounds)} of {rounds.rounds} rounds are done.")
    echo = [f"You wrote: “{english.shortened(each.text, 80)}”." for each in task.entries if not each.follow_up]
    return said or echo


def _result(call: ToolCall) -> str:
    shown = english.shortened(call.result, 200)
    expression = json_object(call.arguments).get("expression")
    if expression and re.fullmatch(r"-?[\d.,]+(e[+-]?\d+)?", shown, re.IGNORECASE):
        return f"{_sum_text(str(expression))} = {shown}."
    return f"{call.name}: {shown or 'no output'}" + ("" if shown.endswith((".", "…")) else ".")


def _spoken(speech: Speak) -> list[str]:
    """A text of an exact size, in the chunks in which it is sent."""
    if speech.unit == "words":
        return [f" w{number}" if number > 1 else "w1" for number in range(1, speech.speak + 1)]
    full, rest = divmod(speech.speak, len(_SPOKEN_BYTES))
    return [_SPOKEN_BYTES] * full + ([_SPOKEN_BYTES[:rest]] if rest else [])


@dataclass(slots=True)
class _SubSession:
    """A sub-session that a task asks for; `text` and `result` are the newest that a tool said of it."""

    prompt: str
    mode: Mode
    text: str | None = None
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.result.get("sub_session_id") or "")

    @property
    def status(self) -> str:
        return str(self.result.get("status") or "")

    @property
    def unfinished(self) -> bool:
        """Whether it is to be polled. A detached one is left alone."""
        return bool(self.id) and self.mode != "detached" and self.status in ("running", "queued")

    def concerns(self, call: ToolCall) -> bool:
        """Whether a tool call started this sub-session or asked for its result."""
        arguments = json_object(call.arguments)
        if call.name == RUN:
            return self.text is None and arguments.get("prompt") == self.prompt
        return call.name == GET and bool(self.id) and arguments.get("sub_session_id") == self.id

    def answer(self) -> str:
        """What the sub-session said, under its prompt."""
        name = english.shortened(self.prompt, 60)
        if self.mode == "detached" and self.id:
            return f"“{name}” goes on as sub-session {self.id} ({self.status or 'running'})."
        answer = str(self.result.get("response") or "").replace(english.SUFFIX, "").strip()
        if not answer:
            answer = str(self.result.get("message") or ("" if json_object(self.text or "") else self.text)).strip()
        mark = f" [{self.status}]" if self.status not in ("", "completed") else ""
        return f"“{name}”{mark}: {answer[:_RESPONSE_SHOWN] or 'no answer'}"


def _sub_sessions(task: Task) -> list[_SubSession]:
    subs = [_SubSession(prompt, step.mode) for step in task.of(Delegate) for prompt in step.delegate]
    for call in task.calls() if subs else ():
        if sub := next((sub for sub in subs if sub.concerns(call)), None):
            sub.text, sub.result = call.result, {"sub_session_id": sub.id, **json_object(call.result)}
    return subs


def broken(answer: Answer, kind: str) -> Answer:
    """The answer with a fault in its content; all other kinds of faults are in how it is sent."""
    match kind:
        case "badargs":
            return replace(answer, calls=[ToolCall(c.name, c.arguments[:-1] or "{") for c in answer.calls])
        case "unknowntool":
            return replace(answer, calls=[ToolCall("no_such_tool", c.arguments) for c in answer.calls])
        case "empty":
            return replace(answer, reasoning=[], pieces=[], calls=[])
        case "length" | "content_filter":
            kept = answer.pieces[: max(1, len(answer.pieces) // 2)] or ["This ", "answer ", "breaks ", "off"]
            return replace(answer, pieces=kept, calls=[], finish=kind)
    return answer


def _sum_text(expression: str) -> str:
    """A sum as people write it. A star would begin italics: answers are shown as Markdown."""
    return expression.replace("**", "^").replace("*", "×")
