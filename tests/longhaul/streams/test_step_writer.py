"""The grammar of what one model call writes, whatever its deltas are and wherever it dies."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from longhaul.streams.events import start_part, tool_output_part
from longhaul.streams.step_writer import RETRIED_CALL, StepWriter, closing_parts, shows_answer
from testkit.grammar import grammar_problems
from testkit.streamlog import StreamEvent, StreamLog

Part = dict[str, Any]
ROUND = 3
HEADERS = {"content-type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1"}


def log_of(parts: list[Part]) -> StreamLog:
    """A stream that begins, holds these parts, and ends."""
    whole: list[Part | None] = [start_part("t"), *parts, {"type": "finish"}, None]
    events = [StreamEvent(f"{number}-0" if part else None, part, 0.0) for number, part in enumerate(whole, 1)]
    return StreamLog(200, headers=HEADERS, events=events)


def check(parts: list[Part]) -> StreamLog:
    log = log_of(parts)
    assert list(grammar_problems(log)) == [], [part["type"] for part in parts]
    return log


def names(parts: list[Part]) -> list[str]:
    return [part["type"] for part in parts]


def written(*steps: Callable[[StepWriter], None], keep_open: bool = False, attempt: int = 1) -> list[Part]:
    parts: list[Part] = []
    writer = StepWriter(parts.append, ROUND, attempt)
    writer.begin()
    for step in steps:
        step(writer)
    writer.end(keep_open=keep_open)
    return parts


def test_reasoning_and_text_take_turns() -> None:
    parts = written(
        lambda w: w.reasoning("a"), lambda w: w.reasoning("b"), lambda w: w.text("c"), lambda w: w.reasoning("d")
    )
    assert [(part["type"], part.get("id"), part.get("delta")) for part in parts if "data" not in part] == [
        ("start-step", None, None),
        ("reasoning-start", "3.1.0", None),
        ("reasoning-delta", "3.1.0", "a"),
        ("reasoning-delta", "3.1.0", "b"),
        ("reasoning-end", "3.1.0", None),
        ("text-start", "3.1.1", None),
        ("text-delta", "3.1.1", "c"),
        ("text-end", "3.1.1", None),
        ("reasoning-start", "3.1.2", None),
        ("reasoning-delta", "3.1.2", "d"),
        ("reasoning-end", "3.1.2", None),
        ("finish-step", None, None),
    ]
    check(parts)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [('{"a": 1}', {"a": 1}), ("", {}), (" ", {}), ("[1]", [1]), ('{"a": ', '{"a": '), ('"x"', '"x"'), ("5", "5")],
)
def test_the_input_of_a_call_is_json_where_it_is_json(arguments: str, shown: Any) -> None:
    parts = written(lambda w: w.tool_available("c", "n", arguments), keep_open=True)
    assert parts[-1] == {"type": "tool-input-available", "toolCallId": "c", "toolName": "n", "input": shown}


def test_a_call_is_announced_once_and_its_block_closed_before() -> None:
    parts = written(
        lambda w: w.text("x"),
        lambda w: w.tool_start("c", "n"),
        lambda w: w.tool_start("c", "name"),
        lambda w: w.tool_delta("c", "{"),
        lambda w: w.tool_delta("c", ""),
        lambda w: w.tool_delta("unknown", "{"),
        lambda w: w.text("y"),
        lambda w: w.tool_delta("c", "}"),
        lambda w: w.text("z"),
        lambda w: w.tool_available("c", "name", "{}"),
        keep_open=True,
    )
    assert names(parts).count("tool-input-start") == 1
    assert names(parts).count("tool-input-delta") == 2
    assert parts[-1]["toolName"] == "name"
    check([*parts, tool_output_part("c", "out", is_error=False), {"type": "finish-step"}])


def test_a_failed_call_takes_back_what_it_showed() -> None:
    parts: list[Part] = []
    writer = StepWriter(parts.append, ROUND, 1)
    writer.begin()
    writer.text("wrong")
    writer.tool_start("b", "n")
    writer.tool_start("a", "n")
    writer.take_back()
    assert [part["toolCallId"] for part in parts if part["type"] == "tool-output-error"] == ["a", "b"]
    voided = {"type": "data-voided", "data": {"ids": ["3.1.0"], "round": ROUND}}
    assert parts[-2:] == [voided, {"type": "finish-step"}]
    assert check(parts).text() == ""
    before = list(parts)
    writer.end(keep_open=False)
    assert parts == before, "a step is ended once"


def test_a_failed_call_that_only_announced_tools_is_taken_back_too() -> None:
    """Else its round would count as shown, and a client that changes over to rows would not get it."""
    parts: list[Part] = []
    writer = StepWriter(parts.append, ROUND, 1)
    writer.begin()
    writer.tool_start("a", "n")
    died = list(parts)
    writer.take_back()
    assert names(parts)[-3:] == ["tool-output-error", "data-voided", "finish-step"]
    assert closing_parts(parts, ROUND) == []
    assert not shows_answer(parts, ROUND, [])
    assert names(closing_parts(died, ROUND)) == ["tool-output-error", "data-voided", "finish-step"]


def test_a_step_that_ends_answers_what_it_announced() -> None:
    """Stop while the model writes a call: its output must not stand outside of the step."""
    parts = written(lambda w: w.text("x"), lambda w: w.tool_start("c", "n"))
    assert names(parts)[-2:] == ["tool-output-error", "finish-step"]
    check(parts)


def test_an_answer_is_shown_or_not() -> None:
    def step(round_: int, text: str, *calls: str) -> list[Part]:
        parts: list[Part] = []
        writer = StepWriter(parts.append, round_, 1)
        writer.begin()
        writer.text(text)
        for call in calls:
            writer.tool_available(call, "n", "{}")
        writer.end(keep_open=bool(calls))
        return parts

    assert shows_answer(step(ROUND, "x"), ROUND, [])
    assert shows_answer(step(ROUND, "x", "c"), ROUND, ["c"])
    assert not shows_answer(step(ROUND, "x", "c"), ROUND, ["c", "d"])
    assert not shows_answer(step(ROUND, "x")[:-1], ROUND, [])
    assert not shows_answer(step(ROUND - 1, "x"), ROUND, []), "the whole step of the round before"
    assert not shows_answer([], ROUND, [])
    before = step(ROUND - 1, "x", "c")
    before += [tool_output_part("c", "out", is_error=False), {"type": "finish-step"}]
    assert not shows_answer(before, ROUND, ["c"]), "a provider may use the id of a call again"


def test_closing_parts_of_nothing() -> None:
    assert closing_parts([], ROUND) == []
    assert closing_parts([start_part("t")], ROUND) == []
    assert closing_parts(written(lambda w: w.text("x")), ROUND + 1) == [], "a whole step of another round"


def test_closing_parts_of_a_step_that_waits_for_outputs() -> None:
    parts = written(
        lambda w: w.tool_available("c", "n", "{}"), lambda w: w.tool_available("d", "n", "{}"), keep_open=True
    )
    parts.append(tool_output_part("c", "out", is_error=False))
    assert closing_parts(parts, ROUND + 1, unanswered="Stopped.") == [
        {"type": "tool-output-error", "toolCallId": "d", "errorText": "Stopped."},
        {"type": "finish-step"},
    ]


def play(rng: random.Random, writer: StepWriter) -> tuple[str, str, set[str]]:
    """Random deltas; the text and reasoning they add up to, and the calls."""
    text = reasoning = ""
    calls: set[str] = set()
    for _ in range(rng.randrange(12)):
        delta, call = rng.choice("abc "), f"call-{rng.randrange(3)}"
        match rng.choice(["text", "reasoning", "start", "delta", "available"]):
            case "text":
                writer.text(delta)
                text += delta
            case "reasoning":
                writer.reasoning(delta)
                reasoning += delta
            case "start":
                writer.tool_start(call, "n")
                calls.add(call)
            case "delta":
                writer.tool_delta(call, delta)
            case "available":
                writer.tool_available(call, "n", "{}")
                calls.add(call)
    return text, reasoning, calls


@pytest.mark.parametrize("seed", range(20))
def test_any_call_that_dies_anywhere_and_is_made_again_is_well_formed(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        parts: list[Part] = []
        attempts = rng.randrange(4)
        for attempt in range(1, attempts + 1):  # those that fail, in one of two ways
            mine: list[Part] = []
            writer = StepWriter(mine.append, ROUND, attempt)
            writer.begin()
            play(rng, writer)
            if rng.random() < 0.5:
                writer.take_back()
                parts += mine
            else:  # the worker dies: a part of what it wrote is there, and nobody ended it
                parts += mine[: rng.randrange(1, len(mine) + 1)]
            since = max(place for place, part in enumerate(parts) if part["type"] == "start-step")
            parts += closing_parts(parts[since:], ROUND)
        writer = StepWriter(parts.append, ROUND, attempts + 1)
        writer.begin()
        text, reasoning, calls = play(rng, writer)
        for call in sorted(calls):
            writer.tool_available(call, "n", "{}")
        writer.end(keep_open=bool(calls))
        for call in sorted(calls):
            parts.append(tool_output_part(call, "out", is_error=False))
        if calls:
            parts.append({"type": "finish-step"})
        log = check(parts)
        assert (log.text(), log.reasoning()) == (text, reasoning), "only the call that came to its end counts"
        assert {call: log.outputs()[call]["type"] for call in calls} == dict.fromkeys(calls, "tool-output-available")
        others = [part for call, part in log.outputs().items() if call not in calls]
        assert all(part["errorText"] == RETRIED_CALL for part in others)
