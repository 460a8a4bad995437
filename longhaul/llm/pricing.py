"""Prices in USD per million tokens, for endpoints that do not say what a call cost."""

from longhaul.contracts import Usage

# (input, cached input, output), as published by the providers in 2026-11; longest matching prefix counts.
PRICES: dict[str, tuple[float, float, float]] = {
    "gpt-4.1": (2.0, 0.5, 8.0),
    "gpt-4.1-mini": (0.4, 0.1, 1.6),
    "gpt-4.1-nano": (0.1, 0.025, 0.4),
    "gpt-5": (1.25, 0.125, 10.0),
    "gpt-5-mini": (0.25, 0.025, 2.0),
    "claude-opus": (5.0, 0.5, 25.0),
    "claude-sonnet": (3.0, 0.3, 15.0),
    "claude-haiku": (1.0, 0.1, 5.0),
}


def priced(model: str, usage: Usage) -> Usage:
    """`usage` with a cost: the endpoint's own, else from the table; None when nobody knows."""
    if usage.cost_microdollars is not None:
        return usage
    name = model.rsplit("/", 1)[-1]
    prefix = max((known for known in PRICES if name.startswith(known)), key=len, default=None)
    if prefix is None:
        return usage
    fresh, cached, answer = PRICES[prefix]
    tokens_in = max(0, usage.prompt_tokens - usage.cached_tokens)
    dollars_per_million = tokens_in * fresh + usage.cached_tokens * cached + usage.completion_tokens * answer
    return usage.model_copy(update={"cost_microdollars": round(dollars_per_million)})
