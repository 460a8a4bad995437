"""The Responses API of the offline model, read by OpenAI's own client."""

from typing import Any

import openai
import pytest

from tests.offline_model.conftest import TOOLS, Model, user

ASKED: dict[str, Any] = {
    "model": "offline-standard",
    "store": False,
    "tools": [{"type": "function", "strict": False, "name": name, "parameters": {}} for name in TOOLS],
    "reasoning": {"effort": "high", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
}


def ask(server: Model, *items: Any, **more: Any) -> list[Any]:
    stream: Any = server.openai.responses.create(input=[*items], stream=True, **{**ASKED, **more})
    return list(stream)


def done(events: list[Any]) -> list[Any]:
    return [event.item for event in events if event.type == "response.output_item.done"]


def test_a_tool_turn_says_the_same_as_by_chat_completions(model: Model) -> None:
    asked = user("think about it: 6*7")
    events = ask(model, asked)
    reasoning, call = done(events)
    chat = model.ask([asked], reasoning_effort="high")
    deltas = [event.delta for event in events if event.type == "response.reasoning_summary_text.delta"]
    assert deltas == chat.reasoning
    assert (call.name, call.arguments) == chat.calls[0]
    assert reasoning.encrypted_content.startswith("offline:")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
    made = {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments}
    *_, message = done(ask(model, asked, reasoning.model_dump(), made, result))
    assert "42" in message.content[0].text


def test_the_end_has_the_usage_and_why_it_is_short(model: Model) -> None:
    whole = ask(model, user("hello"))[-1].response
    assert whole.status == "completed"
    assert whole.usage.input_tokens + whole.usage.output_tokens == whole.usage.total_tokens > 0
    assert whole.usage.cost > 0
    short = ask(model, user("hello [fault=length]"))[-1].response
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize(
    ("items", "more", "code"),
    [
        ([user("x")], {"store": True}, None),
        ([user("x")], {"tools": [{"type": "function", "name": "a", "strict": True, "parameters": {}}]}, None),
        ([user("x"), {"type": "function_call_output", "call_id": "c", "output": "1"}], {}, None),
        (
            [user("x"), {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "another's"}],
            {},
            "invalid_encrypted_content",
        ),
        ([user("x"), {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "offline:1"}], {}, None),
        ([user("x")], {"model": "offline-unverified"}, "unsupported_value"),
    ],
)
def test_what_openai_refuses_is_refused(model: Model, items: list[Any], more: dict[str, Any], code: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(model, *items, **more)
    assert caught.value.code == code


def test_a_model_of_this_api_alone_says_so(model: Model) -> None:
    with pytest.raises(openai.NotFoundError, match="only supported in v1/responses"):
        model.openai.chat.completions.create(
            model="offline-responses-only",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
        )
    assert done(ask(model, user("hi"), model="offline-responses-only"))
