"""One scale of efforts, in the words of each family of models."""

from typing import Any

import pytest

from longhaul.llm.effort import efforts_of
from longhaul.llm.models import EFFORTS, Effort, ModelInfo, model_info
from longhaul.llm.request import effort_of, request_body
from longhaul.settings import load_settings

SYSTEM = {"role": "system", "content": "rules"}
CLAUDES = ["anthropic/claude-sonnet-4.5", "claude-opus-4-1"]


def asked(model: str, mode: str = "fast", effort: str = "", **values: Any) -> object:
    """What a request asks for in the field of the model's family; None: it asks for nothing."""
    settings = load_settings(**values)
    wanted = effort_of(settings, mode, effort)
    body = request_body(settings, model=model, effort=wanted, messages=[SYSTEM], tools=[])
    assert not {"reasoning", "reasoning_effort"} <= body.keys()
    return body["reasoning"]["max_tokens"] if "reasoning" in body else body.get("reasoning_effort")


@pytest.mark.parametrize("model", CLAUDES)
@pytest.mark.parametrize(("tokens", "wanted"), [(8192, 8192), (1, 1), (0, None), (-1, None)])
def test_reasoning_of_anthropic_models(model: str, tokens: int, wanted: int | None) -> None:
    assert asked(model, "extended_thinking", reasoning_max_tokens=tokens) == wanted


@pytest.mark.parametrize(
    ("model", "fast", "thinking"),
    [
        ("gpt-5", "minimal", "high"),
        ("openai/gpt-5-mini", "minimal", "high"),
        ("gpt-5.2", "none", "high"),
        ("o3", "low", "high"),
        ("o3-2025-04-16", "low", "high"),
        ("gpt-5-of-tomorrow", "low", "high"),
        ("openai/gpt-oss-120b", "low", "high"),
        ("gemini-2.5-pro", "low", "high"),
        ("offline-standard", "none", "high"),
        ("claude-sonnet-4-5", None, 8192),
        ("anthropic/claude-sonnet-5.5", 1024, 8192),
        ("gpt-4.1", None, None),
        ("openai/gpt-4o", None, None),
        ("mistral-large", None, None),
        ("deepseek-reasoner", None, None),
        ("unheard-of", None, None),
    ],
)
def test_a_model_that_always_thinks_gets_its_lowest_in_mode_fast(model: str, fast: object, thinking: object) -> None:
    assert (asked(model), asked(model, "extended_thinking")) == (fast, thinking)
    assert asked(model, "extended_thinking", reasoning_max_tokens=0) == fast


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("gpt-5", ["minimal", "minimal", "low", "medium", "high", "high", "high"]),
        ("gpt-5.2", ["none", "none", "low", "medium", "high", "xhigh", "xhigh"]),
        ("offline-standard", list(EFFORTS)),
        ("claude-sonnet-4-5", [None, 1024, 2048, 4096, 8192, 16_384, 32_000]),
        ("claude-sonnet-5-5", [1024, 1024, 2048, 4096, 8192, 16_384, 32_768]),
        ("gpt-4.1", [None] * 7),
    ],
)
def test_an_effort_that_a_model_lacks_becomes_the_nearest_below(model: str, wanted: list[object]) -> None:
    for mode in ("fast", "extended_thinking"):
        assert [asked(model, mode, effort) for effort in EFFORTS] == wanted, "what a message chooses counts"


@pytest.mark.parametrize("effort", EFFORTS)
def test_the_effort_of_the_mode_is_a_setting(effort: Effort) -> None:
    assert asked("offline-standard", "extended_thinking", reasoning_effort=effort) == effort
    assert asked("offline-standard", "fast", reasoning_effort=effort) == "none"


def test_efforts_by_setting() -> None:
    models = {"qwen-local": {"efforts": ["none", "high"]}, "gpt-5": {"efforts": ["medium"]}}
    assert asked("qwen-local", "extended_thinking", "low", models=models) == "none"
    assert asked("qwen-local", "extended_thinking", "max", models=models) == "high"
    assert asked("gpt-5", models=models) == "medium"


def test_what_a_model_tells_apart() -> None:
    settings = load_settings()
    found = {name: efforts_of(name, model_info(settings, name)) for name in ("claude-opus-4-1", "gpt-4.1", "o3")}
    assert found == {"claude-opus-4-1": EFFORTS, "gpt-4.1": (), "o3": ("low", "medium", "high")}
    assert efforts_of("claude-next", ModelInfo(always_thinks=True)) == EFFORTS[1:]
