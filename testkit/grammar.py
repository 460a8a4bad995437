"""The grammar of a stream, checked on what a client received from its start to its end."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from testkit.streamlog import DONE, StreamEvent, StreamLog

_FREE = ("start", "finish", "error", "abort")
_BLOCKS = ("text", "reasoning")


@dataclass
class _State:
    step: bool = False
    block: tuple[str, str] | None = None
    ids: set[str] = field(default_factory=set)
    calls: dict[str, bool] = field(default_factory=dict)
    finished: bool = False


def _block(state: _State, kind: str, verb: str, id_: str) -> str | None:
    """A block event: opened once, fed while open, closed, and never two at a time."""
    if verb == "start":
        if state.block is not None:
            return f"opened while {state.block} is open"
        if id_ in state.ids:
            return "an id that was used before"
        state.ids.add(id_)
        state.block = (kind, id_)
    elif state.block != (kind, id_):
        return f"not the open block, which is {state.block}"
    elif verb == "end":
        state.block = None
    return None


def _tool(state: _State, kind: str, call: str) -> str | None:
    """A tool event: announced, then its output once; a retried model call may announce it again after that."""
    if kind.startswith("tool-input"):
        if state.block is not None:
            return f"while {state.block} is open"
        if kind == "tool-input-delta" and call not in state.calls:
            return "for a call that was not announced"
        state.calls[call] = False
        return None
    if call not in state.calls:
        return "an output of a call that was not announced"
    if state.calls[call]:
        return "a second output of the same call"
    state.calls[call] = True
    return None


def _step(state: _State, kind: str) -> str | None:
    if (kind == "start-step") == state.step:
        return "steps are not balanced"
    if state.block is not None:
        return f"while {state.block} is open"
    state.step = kind == "start-step"
    return None


def _problem(state: _State, event: StreamEvent) -> str | None:
    kind, part = event.type, event.part or {}
    if state.finished:
        return "behind finish"
    if kind.startswith("data-"):
        return None
    if kind in _FREE:
        if state.step:
            return "inside a step"
        state.finished = kind == "finish"
        return None
    if kind in ("start-step", "finish-step"):
        return _step(state, kind)
    if not state.step:
        return "outside of a step"
    if kind == "file":
        return None if state.block is None else f"while {state.block} is open"
    name, _, verb = kind.partition("-")
    if name in _BLOCKS:
        return _block(state, name, verb, str(part.get("id")))
    if name == "tool":
        return _tool(state, kind, str(part.get("toolCallId")))
    return "no part of the protocol"


def _number(id_: str) -> tuple[int, int]:
    high, _, low = id_.partition("-")
    return int(high), int(low or 0)


def grammar_problems(log: StreamLog) -> Iterable[str]:
    """Everything about this stream that the contract does not allow.

    `data-voided` with `all` says that the stream begins anew, because the API cannot know any more what the client has.
    """
    if log.headers.get("x-vercel-ai-ui-message-stream") != "v1":
        yield "the header x-vercel-ai-ui-message-stream is missing"
    events = log.valid[: -1 if log.finished else None]
    types = [event.type for event in events]
    if not events or events[0].type != "start":
        yield f"does not begin with start: {types[:3]}"
    if not log.finished or log.types[-2:-1] != ["finish"]:
        yield f"does not end with finish and {DONE}: {log.types[-3:]}"
    if log.count(DONE) != 1:
        yield f"{log.count(DONE)} × {DONE}"
    for kind, least in (("start", 1), ("finish", 1), ("abort", 0), ("error", 0)):
        if not least <= types.count(kind) <= 1:
            yield f"{types.count(kind)} × {kind}"
    state = _State()
    for index, event in enumerate(events):
        if problem := _problem(state, event):
            yield f"event {index} {event.id} {event.part}: {problem}"
    yield from (f"tool call {call} has no output" for call, done in state.calls.items() if not done)
    ids = [_number(event.id) for event in events if event.id]
    if any(later <= earlier for earlier, later in itertools.pairwise(ids)):
        yield "event ids do not increase"


def check_stream(log: StreamLog) -> StreamLog:
    """The log, if it keeps to the grammar.

    Raises:
        AssertionError: names everything that it breaks, and the types of all events.
    """
    assert log.status == 200, f"{log.status}: {log.body}"
    problems = list(grammar_problems(log))
    assert not problems, "\n".join([*problems[:20], " ".join(log.types)[:3000]])
    return log
