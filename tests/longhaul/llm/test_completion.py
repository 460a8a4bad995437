"""Putting a streamed answer together, also from endpoints that do not keep to the protocol."""

from typing import Any

import pytest

from longhaul.llm.completion import Assembler, Completion, Piece

Delta = dict[str, Any]


def chunk(delta: Delta | None = None, finish: str | None = None, **more: Any) -> Delta:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}


def call(index: int | None = None, id_: str | None = None, name: str | None = None, arguments: Any = None) -> Delta:
    """A tool call delta, with only what is given."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    outer = {key: value for key, value in (("index", index), ("id", id_)) if value is not None}
    return {**outer, "type": "function", "function": function}


def assembled(*deltas: Delta) -> tuple[Completion, list[Piece]]:
    found = Assembler()
    pieces = [piece for delta in deltas for piece in found.feed(chunk(delta))]
    pieces += found.feed(chunk(finish="stop"))
    return found.completion(7), pieces


def calls(*deltas: Delta) -> list[tuple[str, str, str]]:
    """The calls that come of tool call deltas, one chunk for each."""
    completion, pieces = assembled(*({"tool_calls": [delta]} for delta in deltas))
    made = [(one.id, one.name, one.arguments) for one in completion.tool_calls]
    for id_, name, arguments in made:  # what is shown on the way adds up to the same
        assert [text for kind, of, text in pieces if kind == "tool" and of == id_][-1:] == ([name] if name else [])
        assert "".join(text for kind, of, text in pieces if kind == "arguments" and of == id_) == arguments
    return made


A, B = ("a", "calculator", '{"e":1}'), ("b", "clock", "{}")


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([call(0, *A)], [A]),
        ([call(0, "a", "calculator"), call(0, arguments='{"e"'), call(0, arguments=":1}")], [A]),
        ([call(0, "a", "calc"), call(0, name="ulator"), call(0, arguments='{"e":1}')], [A]),
        ([call(0, *A), call(1, *B)], [A, B]),
        (
            [
                call(0, "a", "calculator"),
                call(1, "b", "clock", "{"),
                call(0, arguments='{"e":1}'),
                call(1, arguments="}"),
            ],
            [A, B],
        ),
        ([call(None, *A), call(None, *B)], [A, B]),
        ([call(None, "a", "calculator"), call(None, arguments='{"e"'), call(None, arguments=":1}")], [A]),
        ([call(None, "a", "calculator", '{"e"'), call(None, "a", None, ":1}"), call(None, *B)], [A, B]),
        ([call(0, "a", "calculator", '{"e"'), call(0, "a", "calculator", ":1}")], [A]),
        ([call(0, *A), call(0, *B)], [A, B]),
        ([call(0, *A), call(0, *B), call(0, arguments=" ")], [A, ("b", "clock", "{} ")]),
        ([call(0, None, "x", "{}"), call(1, None, "y", "{}")], [("call_0", "x", "{}"), ("call_1", "y", "{}")]),
        ([call(None, None, "x", "{}"), call(None, None, "y", "{}")], [("call_0", "x", "{}"), ("call_1", "y", "{}")]),
        ([call(0, "a", "x", "{}"), call(1, "a", "y", "{}")], [("a", "x", "{}"), ("a_2", "y", "{}")]),
        ([call(None, "a", "x", "{}"), call(None, "a", "x", "{}")], [("a", "x", "{}"), ("a_2", "x", "{}")]),
        ([call(0, "a", None, "{}")], [("a", "", "{}")]),
        ([call(0, "a", "x")], [("a", "x", "")]),
        ([call(0, "a", "x", {"n": 1})], [("a", "x", '{"n":1}')]),
        ([call(0, "a\x00", "x\x00y", "{}")], [("a", "xy", "{}")]),
        ([{"index": 0, "id": "a", "function": {"name": "x"}}, {"index": 0, "function": None}], [("a", "x", "")]),
    ],
)
def test_tool_calls(deltas: list[Delta], expected: list[tuple[str, str, str]]) -> None:
    assert calls(*deltas) == expected


@pytest.mark.parametrize("junk", ["x", None, 5, [], {"function": "x"}, {"function": [1]}])
def test_malformed_call_deltas_are_dropped(junk: Any) -> None:
    completion, _ = assembled({"tool_calls": [junk, call(0, *A)]}, {"tool_calls": "x"}, {"tool_calls": None})
    assert [one.id for one in completion.tool_calls] == ["a"]


def test_ids_and_names_fit_into_columns() -> None:
    found = calls(call(0, "i" * 5000, "n" * 5000, "{}"), call(1, "i" * 5001, "n", "{}"))
    assert all(len(id_) <= 100 and len(name) <= 200 for id_, name, _ in found)
    assert found[0][0] != found[1][0]


def test_ids_that_the_turn_has_used_are_not_used_again() -> None:
    found = Assembler(taken=["call_0", "a"])
    found.feed(chunk({"tool_calls": [call(0, None, "x", "{}"), call(1, "a", "y", "{}")]}))
    assert [one.id for one in found.completion(0).tool_calls] == ["call_0_2", "a_2"]


@pytest.mark.parametrize(
    ("delta", "reasoning"),
    [
        ({"reasoning": "a"}, "a"),
        ({"reasoning_content": "a"}, "a"),
        ({"reasoning": "a", "reasoning_content": "b", "reasoning_details": [{"text": "c"}]}, "a"),
        ({"reasoning": "", "reasoning_content": "b"}, "b"),
        ({"reasoning": None, "reasoning_details": [{"type": "reasoning.text", "text": "c"}]}, "c"),
        ({"reasoning_details": [{"type": "reasoning.summary", "summary": "d"}]}, "d"),
        ({"reasoning_details": [{"text": "", "summary": "d"}, {"text": "e", "summary": "no"}]}, "de"),
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x", "text": "secret"}]}, ""),
        ({"reasoning_details": [{"type": "reasoning.odd", "text": "secret"}, {"type": None, "text": "e"}]}, "e"),
        ({"reasoning_details": "x"}, ""),
        ({"reasoning_details": {"text": "x"}}, ""),
        ({"reasoning_details": [None, 5, "x", {"text": 5}, {"type": [], "text": "x"}, {"text": "e"}]}, "e"),
        ({"reasoning": {"text": "x"}, "reasoning_content": 5}, ""),
    ],
)
def test_reasoning(delta: Delta, reasoning: str) -> None:
    completion, pieces = assembled({**delta, "content": "t"})
    assert (completion.reasoning, completion.text) == (reasoning, "t")
    shown = [piece for piece in pieces if piece[0] != "reasoned"]
    assert shown == [("reasoning", reasoning, "")] * bool(reasoning) + [("text", "t", "")]


def test_thinking_in_the_text_is_reasoning() -> None:
    completion, pieces = assembled({"content": "a<thi"}, {"content": "nk>b</think>"}, {"content": "c<"})
    assert (completion.text, completion.reasoning) == ("ac<", "b")
    assert [kind for kind, _, _ in pieces] == ["text", "reasoning", "reasoned", "text", "text"]


def test_what_is_held_back_when_the_stream_stops_is_shown_and_kept() -> None:
    found = Assembler()
    found.feed(chunk({"content": "a <th"}))
    assert found.rest() == [("text", "<th", "")]
    assert not found.ended
    assert found.completion(0).text == "a <th"


@pytest.mark.parametrize("odd", [{}, {"choices": None}, {"choices": []}, {"choices": ["x"]}, {"choices": [{}]}])
def test_chunks_that_say_nothing(odd: Delta) -> None:
    assert Assembler().feed(odd) == []
    assert Assembler().feed({"choices": [{"delta": "x"}]}) == []


@pytest.mark.parametrize(
    ("cost", "booked"),
    [
        (0.0012345, 1234),
        (0, 0),
        (2, 2_000_000),
        (None, None),
        (-0.1, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("0.5", None),
        ([], None),
        (1e300, None),
        (10**400, None),
    ],
)
def test_cost(cost: Any, booked: int | None) -> None:
    found = Assembler()
    found.feed({"choices": [], "usage": {"prompt_tokens": 3, "cost": cost}})
    made = found.completion(0)
    assert not made.is_estimated
    assert made.usage.cost_microdollars == booked
    assert made.usage.prompt_tokens == 3


@pytest.mark.parametrize(
    "sent",
    [
        {"cache_creation_input_tokens": 7, "cache_read_input_tokens": 3},
        {"prompt_tokens_details": {"cached_tokens": 3, "cache_creation_tokens": 7}},
        {"prompt_tokens_details": {"cached_tokens": 3, "cache_creation_input_tokens": 7}},
        {"prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 7}},
        {"cache_creation_input_tokens": 0, "prompt_tokens_details": {"cached_tokens": 3, "cache_creation_tokens": 7}},
    ],
    ids=["Anthropic", "LiteLLM", "LiteLLM, as Anthropic names it", "OpenRouter", "zero in the other field"],
)
def test_tokens_read_from_the_cache_and_written_to_it(sent: dict[str, Any]) -> None:
    found = Assembler()
    found.feed({"choices": [], "usage": {"prompt_tokens": 20, **sent}})
    usage = found.completion(0).usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.cache_creation_tokens) == (20, 3, 7)


def test_usage_and_what_is_odd_in_it() -> None:
    found = Assembler()
    details = {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 4}}
    found.feed({"model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 2, **details}})
    found.feed(chunk(finish="length", model="other"))
    made = found.completion(9)
    assert made.usage.model_dump() == {
        "calls": 1,
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "cached_tokens": 3,
        "cache_creation_tokens": 0,
        "reasoning_tokens": 4,
        "cost_microdollars": None,
    }
    assert (made.model, made.finish_reason, made.duration_ms) == ("m", "length", 9)
    for odd in (-1, "5", None, True, 2**31, 1.5):
        odd_tokens = {"cache_creation_input_tokens": odd, "prompt_tokens_details": {"cache_write_tokens": odd}}
        found.feed({"usage": odd_tokens})
        assert found.completion(0).usage.cache_creation_tokens == 0
        found.feed({"usage": {"prompt_tokens": odd, "prompt_tokens_details": "x", "completion_tokens_details": None}})
        assert found.completion(0).usage.prompt_tokens == 0


def test_model_and_finish_reason_fit_into_columns() -> None:
    found = Assembler()
    found.feed(chunk(finish="f" * 100 + "\x00", model="m" * 1000))
    made = found.completion(0)
    assert (len(made.finish_reason), len(made.model)) == (32, 200)
