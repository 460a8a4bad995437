"""The Responses API in the form of Chat Completions, both ways."""

from typing import Any

import httpx2
import openai
import pytest

from longhaul.llm.completion import Assembler
from longhaul.llm.responses import (
    ENCRYPTED,
    INCLUDE,
    ITEMS,
    SUMMARY,
    EncryptedReasoning,
    ResponseEvents,
    refused_option,
    responses_body,
    wants_responses,
)

SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "s"}
CALLS = [{"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)]


def sealed(place: int) -> EncryptedReasoning:
    return EncryptedReasoning(place=place, item={**SEALED, "id": f"rs_{place}"})


def kinds(body: dict[str, Any]) -> list[str]:
    return [item.get("id") or item.get("call_id") or item["role"] for item in body["input"]]


def test_a_request_in_both_forms() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,A"}}
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    asked = responses_body(
        {
            "model": "gpt-5",
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "S", "cache_control": {}}]},
                {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
                {"role": "assistant", "content": "ok", "tool_calls": CALLS[:1]},
                {"role": "tool", "tool_call_id": "c1", "content": "1"},
            ],
            "tools": [{**tool, "cache_control": {}}],
            "stream_options": {"include_usage": True},
            "usage": {"include": True},
            "reasoning_effort": "low",
            "max_completion_tokens": 50,
        }
    )
    assert asked == {
        "model": "gpt-5",
        "instructions": "S",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": "data:,A"}],
            },
            {"role": "assistant", "content": "ok"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
        ],
        "tools": [
            {
                "type": "function",
                "strict": False,
                "name": "f",
                "description": "d",
                "parameters": {"type": "object"},
            }
        ],
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 50,
        "store": False,
        "stream": True,
    }


def test_encrypted_reasoning_stands_before_what_it_led_to_and_nowhere_else() -> None:
    answer = {"role": "assistant", "content": "t", "tool_calls": CALLS, ENCRYPTED: [sealed(n) for n in range(4)]}
    body = {"model": "m", "messages": [answer]}
    assert kinds(responses_body(body)) == ["rs_0", "assistant", "rs_1", "c1", "rs_2", "c2"], "nothing follows the last"
    for option in (ITEMS, INCLUDE):
        assert kinds(responses_body(body, [option])) == ["assistant", "c1", "c2"]
    empty = {"role": "assistant", "content": None, ENCRYPTED: [sealed(0)]}
    assert kinds(responses_body({"model": "m", "messages": [empty]})) == []


def test_what_reasoning_is_asked_for() -> None:
    def reasoning(without: tuple[str, ...] = (), **fields: Any) -> tuple[Any, Any]:
        body = responses_body({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}, without)
        return body.get("reasoning"), body.get("include")

    encrypted = ["reasoning.encrypted_content"]
    assert reasoning() == (None, None), "models that do not reason refuse both"
    assert reasoning(reasoning={"max_tokens": 9}) == ({"max_tokens": 9}, None)
    assert reasoning(reasoning_effort="none") == ({"effort": "none"}, encrypted)
    assert reasoning((SUMMARY,), reasoning_effort="high") == ({"effort": "high"}, encrypted)
    assert reasoning((INCLUDE,), reasoning_effort="high") == ({"effort": "high", "summary": "auto"}, None)


def assembled(*events: dict[str, Any]) -> Assembler:
    assembler, translated = Assembler(), ResponseEvents()
    for event in events:
        if (chunk := translated.chunk(event)) is not None:
            assembler.feed(chunk)
    return assembler


def item(kind: str, at: int, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.output_item.{kind}", "output_index": at, "item": fields}


END = {"type": "response.completed", "response": {"usage": {"input_tokens": 5, "output_tokens": 2, "cost": 0.5}}}


def test_an_answer_of_reasoning_text_and_parallel_calls() -> None:
    assembler = assembled(
        {"type": "response.created", "response": {"id": "r1", "model": "gpt-5-2026"}},
        item("added", 0, type="reasoning", summary=[]),
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "first"},
        {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 1},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 1, "delta": "second"},
        item("done", 0, **{**SEALED, "summary": [{"text": "first"}, {"text": "second"}]}),
        {"type": "response.output_text.delta", "output_index": 1, "delta": "Hello"},
        item("done", 1, type="message", content=[{"type": "output_text", "text": "Hello"}]),
        item("added", 2, type="function_call", call_id="a", name="f", arguments=""),
        item("added", 3, type="function_call", call_id="b", name="g", arguments=""),
        {"type": "response.function_call_arguments.delta", "output_index": 3, "delta": '{"b"'},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{}"},
        {"type": "response.function_call_arguments.delta", "output_index": 3, "delta": ": 1}"},
        item("done", 2, type="function_call", call_id="a", name="f", arguments="{}"),
        item("done", 3, type="function_call", call_id="b", name="g", arguments='{"b": 1}'),
        {
            "type": "response.completed",
            "response": {
                "usage": {
                    "input_tokens": 90,
                    "input_tokens_details": {"cached_tokens": 80},
                    "output_tokens": 30,
                    "output_tokens_details": {"reasoning_tokens": 20},
                }
            },
        },
    )
    answer = assembler.completion(0)
    assert (answer.model, answer.reasoning, answer.text) == ("gpt-5-2026", "first\n\nsecond", "Hello")
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [
        ("a", "f", "{}"),
        ("b", "g", '{"b": 1}'),
    ]
    assert answer.finish_reason == "tool_calls"
    used = answer.usage
    assert (used.prompt_tokens, used.cached_tokens, used.completion_tokens, used.reasoning_tokens) == (90, 80, 30, 20)
    assert [(one.place, one.item["id"]) for one in answer.encrypted] == [(0, "rs_1")]
    assert "rs_1" not in answer.model_dump_json(), "it is in no checkpoint, so in no history"


def test_an_endpoint_that_sends_items_whole() -> None:
    answer = assembled(
        item("done", 0, type="reasoning", summary=[{"type": "summary_text", "text": "thought"}]),
        item("done", 1, type="message", content=[{"type": "output_text", "text": "Hello"}]),
        item("done", 2, type="function_call", call_id="a", name="f", arguments="{}"),
        {**END},
    ).completion(0)
    assert (answer.reasoning, answer.text, answer.tool_calls[0].arguments) == ("thought", "Hello", "{}")
    assert answer.usage.cost_microdollars == 500_000


def test_encrypted_reasoning_says_before_which_part_it_stands() -> None:
    answer = assembled(
        item("done", 0, **SEALED),
        {"type": "response.output_text.delta", "output_index": 1, "delta": "x"},
        item("done", 2, **SEALED),
        item("added", 3, type="function_call", call_id="a", name="f"),
        item("done", 4, **SEALED),
        item("added", 5, type="function_call", call_id="b", name="f"),
        item("done", 6, **{**SEALED, "encrypted_content": None}),
    ).completion(0)
    assert [one.place for one in answer.encrypted] == [0, 1, 2]


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "stop")]
)
def test_an_answer_that_is_cut_short(reason: str | None, finish: str) -> None:
    details = {"reason": reason} if reason else None
    ended = assembled({"type": "response.incomplete", "response": {"incomplete_details": details}})
    assert (ended.finish_reason, ended.usage) == (finish, None)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": 5},
        {"type": "response.output_item.done", "item": None},
        {"type": "response.output_item.done", "output_index": [], "item": {"type": "message", "content": "x"}},
        {"type": "response.output_item.added", "output_index": "0", "item": {"type": "function_call"}},
        {"type": "response.output_text.delta", "delta": {"a": 1}},
        {"type": "response.created", "response": "x"},
    ],
)
def test_malformed_events_end_no_answer(event: dict[str, Any]) -> None:
    assert assembled(event, END).ended


def test_a_fault_in_the_stream_is_an_error_chunk() -> None:
    events = ResponseEvents()
    failed = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "m"}}}
    assert events.chunk(failed) == {"error": {"code": "server_error", "message": "m"}}
    assert events.ended
    said = {"type": "error", "code": "rate_limit_exceeded", "message": "m"}
    assert ResponseEvents().chunk(said) == {"error": said}


def refusal(status: int, body: Any) -> openai.APIStatusError:
    request = httpx2.Request("POST", "http://model/v1/x")
    return openai.APIStatusError("x", response=httpx2.Response(status, request=request), body=body)


@pytest.mark.parametrize(
    ("status", "said", "wanted"),
    [
        (404, "This model is only supported in v1/responses and not in v1/chat/completions.", True),
        (400, "Use the Responses API for this model.", True),
        (404, "Unknown request URL: POST /v1/chat/completions.", True),
        (405, "Method Not Allowed", True),
        (404, "The model `x` does not exist or you do not have access to it.", False),
        (400, "This is not a chat model and thus not supported in the v1/chat/completions endpoint.", False),
        (500, "v1/responses is down", False),
    ],
)
def test_which_refusals_send_a_model_to_the_responses_api(status: int, said: str, wanted: bool) -> None:
    assert wants_responses(refusal(status, {"message": said})) is wanted


@pytest.mark.parametrize(
    ("body", "option"),
    [
        ({"message": "Your organization must be verified", "param": "reasoning.summary"}, SUMMARY),
        ({"message": "Encrypted content is not supported with this model."}, INCLUDE),
        ({"message": "Invalid value", "param": "include[0]"}, INCLUDE),
        ({"message": "x", "code": "invalid_encrypted_content"}, ITEMS),
        ({"message": "Item with id 'rs_1' not found."}, ITEMS),
        ({"message": "Invalid schema for function 'f'", "param": "tools[0].parameters"}, None),
    ],
)
def test_what_a_request_may_leave_out(body: dict[str, Any], option: str | None) -> None:
    assert refused_option(refusal(400, body)) == option
    assert refused_option(refusal(503, body)) is None
