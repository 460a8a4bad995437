"""The request, with what differs between providers."""

import hashlib
from typing import Any

import orjson
import pytest

from longhaul.contracts import Scope
from longhaul.db.conversation import PromptMessage
from longhaul.llm.models import EFFORTS, Effort
from longhaul.llm.prompts import SYSTEM
from longhaul.llm.request import NOTHING, About, effort_of, request_body, request_for, system_message
from longhaul.settings import Settings, load_settings
from longhaul.tools import default_tools

MESSAGES = [{"role": "system", "content": "rules"}, {"role": "user", "content": "hello"}]
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
CLAUDES = ["anthropic/claude-sonnet-4.5", "claude-opus-4-1"]


def body(
    model: str = "gpt-4.1", mode: str = "fast", tools: list[dict[str, Any]] = TOOLS, effort: str = "", **values: Any
) -> dict[str, Any]:
    settings = load_settings(**values)
    asked = effort_of(settings, mode, effort)
    return request_body(settings, model=model, effort=asked, messages=MESSAGES, tools=tools)


def test_the_plain_one() -> None:
    assert body(openai_base_url="https://api.example.com/v1") == {
        "model": "gpt-4.1",
        "messages": MESSAGES,
        "stream_options": {"include_usage": True},
        "tools": TOOLS,
    }


@pytest.mark.parametrize("model", CLAUDES)
@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_cache_breakpoints_of_anthropic_models(model: str, ttl: str) -> None:
    control = {"type": "ephemeral", "ttl": ttl}
    found = body(model, prompt_cache_ttl=ttl)
    block = {"type": "text", "text": "rules", "cache_control": control}
    assert found["messages"] == [{"role": "system", "content": [block]}, MESSAGES[1]]
    assert found["tools"] == [TOOLS[0], {**TOOLS[1], "cache_control": control}]


def test_what_was_given_is_not_changed() -> None:
    body(CLAUDES[0])
    assert MESSAGES[0] == {"role": "system", "content": "rules"}
    assert "cache_control" not in TOOLS[1]


def test_without_tools() -> None:
    assert "tools" not in body(tools=[])
    assert "tools" not in body(CLAUDES[0], tools=[])


@pytest.mark.parametrize(
    ("url", "setting", "asked"),
    [
        ("https://openrouter.ai/api/v1", None, True),
        ("http://127.0.0.1:9/v1", None, True),
        ("", None, False),
        ("https://api.example.com/v1", None, False),
        ("https://api.example.com/v1", True, True),
        ("https://openrouter.ai/api/v1", False, False),
    ],
)
def test_cost_is_asked_of_those_who_know_it(url: str, setting: bool | None, asked: bool) -> None:
    found = body(openai_base_url=url, model_usage_cost=setting)
    assert found.get("usage") == ({"include": True} if asked else None)


ROWS = [
    PromptMessage(f"{place}", place, role, "message", content, None, None, "t", None)
    for place, (role, content) in enumerate([("user", "hello"), ("assistant", "hi"), ("user", "more")])
]


def prefix(settings: Settings, about: About, rows: int, effort: Effort) -> str:
    """A hash of what comes before the first user message: what a prompt cache can share."""
    request = request_for(
        settings,
        model="anthropic/claude-sonnet-4.5",
        effort=effort,
        about=about,
        rows=ROWS[:rows],
        tools=default_tools().schemas(Scope()),
        max_tokens=100_000,
    )
    before = [message for message in request.body["messages"] if message["role"] == "system"]
    assert request.body["messages"][: len(before)] == before
    return hashlib.sha256(orjson.dumps([request.body["tools"], before])).hexdigest()


def test_the_prefix_is_the_same_for_all_users_turns_rounds_and_sub_sessions() -> None:
    settings = load_settings()
    found = {
        prefix(settings, about, rows, effort)
        for about in (NOTHING, About("I am Ada.", None, "A summary."), About("I am Bob.", "Context of a sub-session."))
        for rows in (1, 3)
        for effort in EFFORTS
    }
    assert len(found) == 1
    assert system_message("") == {"role": "system", "content": SYSTEM}
    assert system_message("Ours.")["content"] == f"{SYSTEM}\n\nOurs."
