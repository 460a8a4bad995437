"""What is known of models, and what their calls cost."""

import json
from typing import Any

import pytest

from longhaul.contracts import Usage
from longhaul.llm.completion import Completion
from longhaul.llm.estimate import Estimate
from longhaul.llm.models import TABLE, UNKNOWN_WINDOW, ModelInfo, known_model, model_info
from longhaul.llm.request import Request
from longhaul.settings import Settings, SettingsError, load_settings
from scripts.model_table import table

USAGE = Usage(calls=1, prompt_tokens=100_000, cached_tokens=40_000, completion_tokens=50_000)
OWN_PRICES: dict[str, Any] = {"prices": {"input": 1, "output": 2}}


def cost(model: str, usage: Usage = USAGE, answered_by: str = "", ttl: str = "1h", **settings: Any) -> int | None:
    info = model_info(load_settings(**settings), model)
    request = Request({"model": model, "max_tokens": 10}, 0, shortened=False, model=info)
    received = Completion(usage=usage, model=answered_by)
    return Estimate(request, None, ttl).completed(received).usage.cost_microdollars


@pytest.mark.parametrize(
    ("model", "microdollars"),
    [
        ("gpt-4.1", 120_000 + 20_000 + 400_000),
        ("gpt-4.1-2025-04-14", 120_000 + 20_000 + 400_000),
        ("gpt-4.1-mini", 24_000 + 4_000 + 80_000),
        ("openai/gpt-5", 75_000 + 5_000 + 500_000),
        ("anthropic/claude-haiku-4.5", 60_000 + 4_000 + 250_000),
        ("deepseek-ai/DeepSeek-V3", None),
        ("gpt-4.1:free", None),
        ("unheard-of", None),
        ("", None),
    ],
)
def test_prices(model: str, microdollars: int | None) -> None:
    assert cost(model) == microdollars


def test_the_endpoints_own_cost_wins() -> None:
    assert cost("gpt-4.1", USAGE.model_copy(update={"cost_microdollars": 0})) == 0


def test_a_name_for_several_models_costs_what_the_one_costs_that_answered() -> None:
    assert cost("auto", answered_by="gpt-4.1-2025-04-14") == cost("gpt-4.1")
    assert cost("gpt-4.1", answered_by="unheard-of") == cost("gpt-4.1")


@pytest.mark.parametrize(("ttl", "dollars"), [("5m", 3.75), ("1h", 6.0)])
def test_tokens_written_to_the_cache_have_their_own_price(ttl: str, dollars: float) -> None:
    written = Usage(prompt_tokens=100_000, cache_creation_tokens=10_000, cached_tokens=50_000)
    assert cost("claude-sonnet-4.5", written, ttl=ttl) == 40_000 * 3 + 50_000 * 0.3 + 10_000 * dollars


def test_a_long_prompt_makes_all_tokens_dearer() -> None:
    assert cost("gemini-2.5-pro", Usage(prompt_tokens=200_000, completion_tokens=1000)) == 250_000 + 10_000
    assert cost("gemini-2.5-pro", Usage(prompt_tokens=200_001, completion_tokens=1000)) == 500_002 + 15_000


def test_an_odd_usage_never_costs_less_than_nothing() -> None:
    odd = Usage(calls=1, prompt_tokens=1, cached_tokens=1000, cache_creation_tokens=1000)
    assert (cost("gpt-4.1", odd) or 0) >= 0


def test_what_a_call_may_cost_counts_a_prompt_that_is_written_to_the_cache() -> None:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 1000}
    request = Request(body, 1000, shortened=False, model=model_info(load_settings(), "claude-sonnet-4-5"))
    assert Estimate(request, 1.0, "1h").most() == 1000 * 6 + 1000 * 15


@pytest.mark.parametrize(
    ("model", "window"),
    [
        ("gpt-4.1", 1_047_576),
        ("gpt-5", 272_000),
        ("claude-sonnet-4-5-20250929", 200_000),
        ("unheard-of", UNKNOWN_WINDOW),
    ],
)
def test_windows(model: str, window: int) -> None:
    assert model_info(load_settings(), model).window == window
    assert model_info(load_settings(context_window=5000), model).window == 5000


def test_settings_override_what_they_name_and_nothing_else() -> None:
    models = {"gpt-4.1": {"window": 9000}, "own": OWN_PRICES, "gemini-2.5-pro": OWN_PRICES}
    settings = load_settings(models=models)
    known = known_model("gpt-4.1")
    assert known is not None
    assert model_info(settings, "gpt-4.1") == known.model_copy(update={"window": 9000})
    assert model_info(settings, "own").window == UNKNOWN_WINDOW
    assert cost("own", models=models) == 100_000 * 1 + 50_000 * 2
    long = Usage(prompt_tokens=300_000)
    assert cost("gemini-2.5-pro", long, models=models) == 300_000, "its known prices of long prompts go with the others"


@pytest.mark.parametrize(
    "wrong", ['{"m": {"windows": 5000}}', '{"m": {"window": 5}}', '{"m": {"prices": {"input": 1}}}', "[]", "m"]
)
def test_a_wrong_override_is_named(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGHAUL_MODELS", wrong)
    with pytest.raises(SettingsError, match="LONGHAUL_MODELS"):
        load_settings()


def test_every_entry_of_the_table_can_be_read() -> None:
    entries = json.loads(TABLE.read_text())["models"]
    assert len(entries) > 500
    found = [ModelInfo.model_validate(entry) for entry in entries.values()]
    assert sum(model.prices is not None for model in found) > 150
    assert all(model.long_prompt is None or model.prices is not None for model in found)


def test_the_defaults_are_known() -> None:
    settings = Settings()
    for name in (settings.model_standard, settings.model_advanced, settings.model_small):
        info = model_info(settings, name)
        assert info.prices is not None
        assert info.window > UNKNOWN_WINDOW


def test_the_table_has_the_makers_price_and_takes_windows_from_hosts() -> None:
    chat = {"mode": "chat", "max_input_tokens": 5000}
    priced = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    found = table(
        {
            "groq/open-1.5": {**chat, **priced, "litellm_provider": "groq"},
            "maker-1-2025-01-01": {**chat, "litellm_provider": "openai", "max_input_tokens": 7000},
            "maker-1": {**chat, **priced, "litellm_provider": "openai", "cache_creation_input_token_cost": 0},
            "host/maker-1": {**chat, "litellm_provider": "azure", "max_input_tokens": 9000},
            "picture": {**chat, "litellm_provider": "openai", "mode": "image_generation"},
        }
    )
    assert found == {
        "open-1-5": {"window": 5000, "output": 0},
        "maker-1": {"window": 5000, "output": 0, "prices": {"input": 1.0, "output": 2.0}},
    }
