"""Where a completion ends, and where the next one begins: the same live, again from Redis, and again from rows."""

from typing import Any

import pytest

from api.completion_parts import CompletionParts
from longhaul.streams.events import Part

START, STEP, END_STEP = {"type": "start"}, {"type": "start-step"}, {"type": "finish-step"}
FINISH = {"type": "finish"}


def made(call: str) -> Part:
    return {"type": "tool-input-available", "toolCallId": call, "toolName": call, "input": {"n": 1}}


def out(call: str) -> Part:
    return {"type": "tool-output-available", "toolCallId": call, "output": "x"}


def asked(call: str, status: str = "waiting", kind: str = "client_tool") -> Part:
    data = {"approval_id": f"id-{call}", "tool_call_id": call, "status": status, "kind": kind}
    return {"type": "data-approval", "data": data}


def says(text: str) -> Part:
    return {"type": "text-delta", "id": "0", "delta": text}


def shown(parts: list[Part], answered: tuple[str, ...] = (), size: int = 100) -> tuple[str, list[str]]:
    """The text of a completion and the calls that it ends with; the parts come in batches of this size."""
    completion = CompletionParts(answered)
    batches = [parts[begin : begin + size] for begin in range(0, len(parts), size)]
    said = [part for batch in batches for part in completion.of(batch)]
    return "".join(part.get("delta", "") for part in said), [call.name for call in completion.calls]


BOTH = [START, STEP, says("one "), made("a"), made("b"), asked("a"), asked("b")]
AFTER = [END_STEP, STEP, says("two "), END_STEP, STEP, made("c"), asked("c")]
LIVE = [*BOTH, asked("a", "answered"), out("a"), asked("b", "answered"), out("b"), *AFTER]
#: Rows know how the calls stand, not how they stood, and say it behind the results.
ROWS = [START, STEP, says("one "), made("a"), made("b"), asked("b", "expired"), asked("a", "answered")]
ROWS += [out("a"), out("b"), *AFTER, asked("c", "answered"), out("c"), END_STEP, STEP, says("three"), END_STEP, FINISH]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("parts", [LIVE, ROWS])
def test_the_same_at_any_time(parts: list[Part], size: int) -> None:
    assert shown(parts, size=size) == ("one ", ["a", "b"])
    assert shown(parts, ("a",), size=size) == ("", ["b"])
    assert shown(parts, ("b",), size=size) == ("", ["a"])
    assert shown(parts, ("a", "b"), size=size) == ("two ", ["c"])


def test_the_end_of_the_turn() -> None:
    whole = [*LIVE, asked("c", "answered"), out("c"), END_STEP, STEP, says("three"), END_STEP, FINISH]
    assert shown(whole, ("c",)) == ("three", [])
    assert FINISH in CompletionParts(("c",)).of(whole)


def test_others_go_on_before_it_ends() -> None:
    """A tool of ours runs: no answer with calls yet. A call that waits for a person does not hold it up."""
    begun = [START, STEP, made("a"), made("ours"), made("careful"), asked("a"), asked("careful", kind="approval")]
    assert shown(begun) == ("", [])
    assert shown([*begun, out("ours")]) == ("", ["a"])


def test_calls_of_ours_end_no_answer() -> None:
    parts = [START, STEP, made("ours"), asked("ours", kind="approval"), asked("ours", "allowed", kind="approval")]
    assert shown([*parts, out("ours"), END_STEP, STEP, says("done"), END_STEP, FINISH]) == ("done", [])


def test_a_turn_that_ends_while_it_waits() -> None:
    """Stopped or out of time: whoever brings the result too late hears it."""
    ended: list[dict[str, Any]] = [*BOTH, out("a"), out("b"), END_STEP, {"type": "abort"}, FINISH]
    completion = CompletionParts(("a", "b"))
    kinds = [part["type"] for part in completion.of(ended)]
    assert (kinds, completion.calls) == (["start", "abort", "finish"], [])


def test_usage_is_that_of_what_is_shown() -> None:
    usage: Part = {"type": "data-usage", "data": {"calls": 1, "prompt_tokens": 5, "model": "m"}}
    completion = CompletionParts(("a", "b"))
    list(completion.of([*BOTH[:3], usage, *LIVE[3:-3], usage]))
    assert (completion.usage.calls, completion.usage.prompt_tokens) == (1, 5)
