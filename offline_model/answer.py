"""From a request to the answer, with no state and no chance in it."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from offline_model import english
from offline_model.conversation import Conversation, Task, ToolCall
from offline_model.request import ChatRequest
from offline_model.script import Call, Delegate, Fault, Mode, Pace, Rounds, Say, Speak, Think, json_object

RUN, GET = "run_sub_session", "get_sub_session_result"
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


def decide(request: ChatRequest, conversation: Conversation) -> Answer:
    """Answer a request."""
    if _wants_title(request):
        first = next((message.text for message in request.messages if message.role == "user"), "")
        return Answer(pieces=english.words(english.title_of(first)))
    tasks = conversation.tasks
    calls = [call for task in tasks for call in _calls_of(task, request.tool_names)]
    greeting = _greeting(tasks)
    thoughts = [step.think for task in tasks for step in task.of(Think)]
    if request.wants_reasoning and not thoughts:
        thoughts = [english.thoughts(tasks[-1].entries[-1].script.text if tasks else "nothing new.")]
    pace = Pace()
    for step in tasks[-1].of(Pace) if tasks else ():
        pace = step.over(pace)
    round_number = tasks[0].rounds + 1 if tasks else 1
    return Answer(
        reasoning=english.words(" ".join(thoughts)),
        pieces=english.words(greeting) if calls else _conclusion(tasks, greeting, request.tool_names),
        calls=calls,
        finish="tool_calls" if calls else "stop",
        pace=pace,
        faults=[step for step in tasks[-1].of(Fault) if step.round in (None, round_number)] if tasks else [],
    )


def _wants_title(request: ChatRequest) -> bool:
    system = (message.text for message in request.messages if message.role in ("system", "developer"))
    return not request.tool_names and any(_TITLE.search(text) for text in system)


def _greeting(tasks: list[Task]) -> str:
    """Acknowledge follow-ups in the first answer after they arrived."""
    if not tasks or tasks[-1].rounds:
        return ""
    follow_ups = [entry.script.text for entry in tasks[-1].entries if entry.follow_up]
    return english.acknowledgement(follow_ups) if follow_ups else ""


def _tool_call(name: str, /, **arguments: Any) -> ToolCall:
    return ToolCall(name, orjson.dumps(arguments).decode())


def _calls_of(task: Task, tools: frozenset[str]) -> list[ToolCall]:
    """What is to be called for a task now: all its calls at first, then polls and further rounds."""
    if not task.rounds:
        calls = _plain_calls(task, tools)
        if RUN in tools:
            calls += [_delegation(prompt, step.mode) for step in task.of(Delegate) for prompt in step.prompts()]
    else:
        unfinished = [sub for sub in _sub_sessions(task) if sub.unfinished and GET in tools]
        calls = [_tool_call(GET, sub_session_id=sub.id, wait_if_running=60) for sub in unfinished]
    if (done := _last_round(task)) < _rounds_wanted(task) and "calculator" in tools:
        calls.append(_tool_call("calculator", expression=f"{done + 1}+0"))
    return calls


def _plain_calls(task: Task, tools: frozenset[str]) -> list[ToolCall]:
    steps = [step for step in task.of(Call) if step.call in tools or not step.optional]
    return [
        ToolCall(step.call, step.arguments)
        if isinstance(step.arguments, str)
        else _tool_call(step.call, **step.arguments)
        for step in steps
    ]


def _delegation(prompt: str, mode: Mode) -> ToolCall:
    if mode == "wait":
        return _tool_call(RUN, prompt=prompt, wait_for_result=60)
    if mode == "slowly":
        return _tool_call(RUN, prompt=prompt, wait_for_result=0)
    return _tool_call(RUN, prompt=prompt, wait_for_result=0, detached=True)


def _rounds_wanted(task: Task) -> int:
    return max((step.rounds for step in task.of(Rounds)), default=0)


def _last_round(task: Task) -> int:
    """The last round made, read from the arguments as they stand, for they may be malformed."""
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
    wanted |= {"calculator"} if task.of(Rounds) else set()
    if missing := sorted(wanted - tools):
        said.append(f"I have no tool {' or '.join(missing)} here.")
    made = task.calls(first_round_only=True)
    for planned in _plain_calls(task, tools):
        if made:  # a fault may have changed the name or the arguments
            call = min(made, key=lambda one: (one.arguments != planned.arguments, one.name != planned.name))
            made.remove(call)
            said.append(_result(call))
    if task.of(Delegate) and RUN in tools:
        said.append(_sub_session_answers(_sub_sessions(task)))
    if wanted_rounds := _rounds_wanted(task):
        said.append(f"{_last_round(task)} of {wanted_rounds} rounds are done.")
    if not said:
        said = [english.echo(entry.script.text) for entry in task.entries if not entry.follow_up]
    return said


def _result(call: ToolCall) -> str:
    result = json_object(call.result)
    value = next((result[key] for key in ("result", "value", "output", "answer") if key in result), call.result)
    shown = english.shortened(str(value), 200)
    expression = json_object(call.arguments).get("expression")
    if expression and re.fullmatch(r"-?[\d.,]+(e[+-]?\d+)?", shown, re.IGNORECASE):
        return f"{expression} = {shown}."
    return f"{call.name}: {shown or 'no output'}" + ("" if shown.endswith((".", "…")) else ".")


def _spoken(speech: Speak) -> list[str]:
    """A text of an exact size, in the chunks in which it is sent."""
    if speech.unit == "words":
        return [f" w{number}" if number > 1 else "w1" for number in range(1, speech.speak + 1)]
    full, rest = divmod(speech.speak, len(_SPOKEN_BYTES))
    return [_SPOKEN_BYTES] * full + ([_SPOKEN_BYTES[:rest]] if rest else [])


@dataclass(slots=True)
class _SubSession:
    """A sub-session that a task started; `result` and `text` are the newest that a tool said of it."""

    prompt: str
    mode: Mode
    text: str
    result: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.result.get("sub_session_id") or "")

    @property
    def unfinished(self) -> bool:
        """Whether it is to be polled. A detached one is left alone."""
        return bool(self.id) and self.mode != "detached" and self.result.get("status") in ("running", "queued")


def _sub_sessions(task: Task) -> list[_SubSession]:
    wanted = [(prompt, step.mode) for step in task.of(Delegate) for prompt in step.prompts()]
    started: list[_SubSession] = []
    for call in task.calls() if wanted else ():
        arguments, result = json_object(call.arguments), json_object(call.result)
        if call.name == RUN:
            match = next((one for one in wanted if one[0] == arguments.get("prompt")), None)
            if match:
                wanted.remove(match)
                started.append(_SubSession(*match, call.result, result))
        elif call.name == GET:
            for sub in started:
                if sub.id and sub.id == arguments.get("sub_session_id"):
                    sub.text, sub.result = call.result, {"sub_session_id": sub.id, **result}
    return started


def _sub_session_answers(subs: list[_SubSession]) -> str:
    """What the sub-sessions said, each under its prompt."""
    said = []
    for sub in subs:
        name, status = english.shortened(sub.prompt, 60), str(sub.result.get("status") or "")
        if sub.mode == "detached" and sub.id:
            said.append(f"“{name}” goes on as sub-session {sub.id} ({status or 'running'}).")
            continue
        answer = str(sub.result.get("response") or "").replace(english.SUFFIX, "").strip()
        if not answer:
            answer = str(sub.result.get("message") or ("" if sub.result else sub.text)).strip() or "no answer"
        mark = f" [{status}]" if status not in ("", "completed") else ""
        said.append(f"“{name}”{mark}: {answer[:_RESPONSE_SHOWN]}")
    if not said:
        return "No sub-session was started."
    return said[0] if len(said) == 1 else "\n".join(f"{number}. {text}" for number, text in enumerate(said, 1))


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
