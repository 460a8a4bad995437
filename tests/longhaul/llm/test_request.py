"""The request, with what differs between providers; and prices."""

import hashlib
from typing import Any

import orjson
import pytest

from longhaul.contracts import Scope, Usage
from longhaul.db.conversation import PromptMessage
from longhaul.llm.completion import PRICES, priced
from longhaul.llm.prompts import SYSTEM
from longhaul.llm.request import NOTHING, About, request_body, request_for, system_message
from longhaul.settings import Settings, load_settings
from longhaul.tools import default_tools

MESSAGES = [{"role": "system", "content": "rules"}, {"role": "user", "content": "hello"}]
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
CLAUDES = ["anthropic/claude-sonnet-4.5", "claude-opus-4-1"]


def body(
    model: str = "gpt-4.1", mode: str = "fast", tools: list[dict[str, Any]] = TOOLS, **settings: Any
) -> dict[str, Any]:
    return request_body(load_settings(**settings), model=model, mode=mode, messages=MESSAGES, tools=tools)


def test_the_plain_one() -> None:
    assert body(openai_base_url="https://api.example.com/v1") == {
        "model": "gpt-4.1",
        "messages": MESSAGES,
        "stream_options": {"include_usage": True},
        "tools": TOOLS,
    }


@pytest.mark.parametrize("model", CLAUDES)
@pytest.mark.parametrize(
    ("tokens", "asked"), [(8192, {"max_tokens": 8192}), (1, {"max_tokens": 1}), (0, None), (-1, None)]
)
def test_reasoning_of_anthropic_models(model: str, tokens: int, asked: dict[str, int] | None) -> None:
    found = body(model, "extended_thinking", reasoning_max_tokens=tokens)
    assert found.get("reasoning") == asked
    assert "reasoning_effort" not in found


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("gpt-5", True),
        ("gpt-5-mini", True),
        ("openai/gpt-5", True),
        ("o1", True),
        ("o3-mini", True),
        ("o4-mini", True),
        ("gpt-4.1", False),
        ("mistral-large", False),
        ("openai/gpt-4o", False),
    ],
)
def test_reasoning_of_others_is_an_effort_where_they_take_it(model: str, effort: bool) -> None:
    found = body(model, "extended_thinking")
    assert found.get("reasoning_effort") == ("high" if effort else None)
    assert "reasoning" not in found
    assert "reasoning_effort" not in body(model, "extended_thinking", reasoning_max_tokens=0)


@pytest.mark.parametrize("model", [*CLAUDES, "gpt-5", "o3"])
def test_fast_does_not_think(model: str) -> None:
    assert {"reasoning", "reasoning_effort"}.isdisjoint(body(model, "fast"))


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


def prefix(settings: Settings, about: About, rows: int, mode: str) -> str:
    """A hash of what comes before the first user message: what a prompt cache can share."""
    request = request_for(
        settings,
        model="anthropic/claude-sonnet-4.5",
        mode=mode,
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
        prefix(settings, about, rows, mode)
        for about in (NOTHING, About("I am Ada.", None, "A summary."), About("I am Bob.", "Context of a sub-session."))
        for rows in (1, 3)
        for mode in ("fast", "extended_thinking")
    }
    assert len(found) == 1
    assert system_message("") == {"role": "system", "content": SYSTEM}
    assert system_message("Ours.")["content"] == f"{SYSTEM}\n\nOurs."


USAGE = Usage(calls=1, prompt_tokens=1_000_000, cached_tokens=400_000, completion_tokens=500_000)


@pytest.mark.parametrize(
    ("model", "microdollars"),
    [
        ("gpt-4.1", 1_200_000 + 200_000 + 4_000_000),
        ("gpt-4.1-2025-04-14", 1_200_000 + 200_000 + 4_000_000),
        ("gpt-4.1-mini", 240_000 + 40_000 + 800_000),
        ("openai/gpt-5", 750_000 + 50_000 + 5_000_000),
        ("anthropic/claude-haiku-4.5", 600_000 + 40_000 + 2_500_000),
        ("unheard-of", None),
        ("", None),
    ],
)
def test_prices(model: str, microdollars: int | None) -> None:
    assert priced(model, USAGE).cost_microdollars == microdollars


def test_the_endpoints_own_cost_wins() -> None:
    assert priced("gpt-4.1", USAGE.model_copy(update={"cost_microdollars": 0})).cost_microdollars == 0


def test_prices_are_never_negative_and_those_of_cached_tokens_lower() -> None:
    assert all(0 < cached < fresh < answer for fresh, cached, answer in PRICES.values())
    odd = Usage(calls=1, prompt_tokens=1, cached_tokens=1000)
    assert (priced("gpt-4.1", odd).cost_microdollars or 0) >= 0
