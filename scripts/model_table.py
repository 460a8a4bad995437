"""Writes longhaul/llm/models.json from LiteLLM's table of models: `make models`.

The wheel of `litellm` is fetched by pip, and only its table is read; nothing of it is installed. A model's prices are
those of the company that makes it: what another host bills for open weights is not known from the name alone.
"""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from longhaul.llm.models import EFFORTS, TABLE, normalised
from longhaul.settings.models import WINDOW_MIN

IN_WHEEL = "litellm/model_prices_and_context_window_backup.json"
LICENCE = "MIT License, Copyright (c) 2023 Berri AI"
MAKERS = (
    *("openai", "anthropic", "gemini", "deepseek", "xai", "mistral"),
    *("moonshot", "zai", "dashscope", "minimax", "cohere_chat"),
)
#: Hosts of open weights: their entries tell window and abilities, if no maker's does.
HOSTS = (
    *("groq", "cerebras", "together_ai", "fireworks_ai", "deepinfra", "novita", "nebius"),
    *("sambanova", "baseten", "hyperbolic", "lambda_ai"),
)
PRICES = {
    "input": "input_cost_per_token",
    "cached": "cache_read_input_token_cost",
    "cache_creation": "cache_creation_input_token_cost",
    "cache_creation_1h": "cache_creation_input_token_cost_above_1hr",
    "output": "output_cost_per_token",
}
LONG_PROMPT = re.compile(r"_above_(\d+)k_tokens$")
FLAGS = {"tools": "supports_function_calling", "vision": "supports_vision", "reasoning": "supports_reasoning"}
OPENAI_REASONING = re.compile(r"o\d|gpt-5|gpt-oss")


def main() -> None:
    """Write the table."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "litellm"]
        subprocess.run(pip, check=True)
        [wheel] = Path(folder).glob("litellm-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            entries: dict[str, dict[str, Any]] = json.loads(archive.read(IN_WHEEL))
    models = table(entries)
    source = f"LiteLLM {wheel.name.split('-')[1]}, {LICENCE}"
    lines = [f"{json.dumps(name)}: {json.dumps(models[name])}" for name in sorted(models)]
    TABLE.write_text(f'{{"source": {json.dumps(source)},\n"models": {{\n' + ",\n".join(lines) + "\n}}\n")
    print(f"{TABLE}: {len(models)} models, {TABLE.stat().st_size // 1024} KB")


def table(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The models by their names without a provider and date."""
    ranks = {provider: rank for rank, provider in enumerate((*MAKERS, *HOSTS))}
    ours = [
        (ranks[entry["litellm_provider"]], name, entry)
        for name, entry in entries.items()
        if entry.get("mode") in ("chat", "responses") and entry.get("litellm_provider") in ranks
    ]
    models: dict[str, dict[str, Any]] = {}
    # Of a name with and without a date, the one without comes first.
    for rank, name, entry in sorted(ours, key=lambda one: (one[0], len(one[1]), one[1])):
        found = model(normalised(name), entry, of_maker=rank < len(MAKERS))
        if found["window"] >= WINDOW_MIN:
            models.setdefault(normalised(name), found)
    return models


def model(name: str, entry: dict[str, Any], *, of_maker: bool) -> dict[str, Any]:
    """One entry. Prices are in US dollars for a million tokens."""
    found: dict[str, Any] = {"window": tokens(entry, "max_input_tokens") or tokens(entry, "max_tokens")}
    found["output"] = tokens(entry, "max_output_tokens")
    found |= {flag: True for flag, theirs in FLAGS.items() if entry.get(theirs)}
    if found.get("reasoning"):
        found["efforts"] = efforts(name, entry)
        if entry.get("thinking_always_on"):
            found["always_thinks"] = True
    if of_maker and entry.get("input_cost_per_token") is not None and entry.get("output_cost_per_token") is not None:
        found["prices"] = prices(entry, "")
        if suffix := min(filter(None, map(LONG_PROMPT.search, entry)), key=lambda one: int(one[1]), default=None):
            found["long_prompt"] = {"above": int(suffix[1]) * 1000, **prices(entry, suffix[0])}
    return found


def tokens(entry: dict[str, Any], name: str) -> int:
    value = entry.get(name)
    return value if isinstance(value, int) else 0


def prices(entry: dict[str, Any], suffix: str) -> dict[str, float]:
    """The prices with this suffix; each that is not there is the one without it."""
    found = {ours: entry.get(theirs + suffix, entry.get(theirs)) for ours, theirs in PRICES.items()}
    # A price of 0 for writing to the cache says that it is not billed apart.
    kept = {ours: price for ours, price in found.items() if price or (price == 0 and ours in ("input", "output"))}
    return {ours: round(price * 1e6, 6) for ours, price in kept.items()}


def efforts(name: str, entry: dict[str, Any]) -> list[str]:
    """The values of `reasoning_effort` that the model takes; none: it is not known to take that parameter."""
    if not (OPENAI_REASONING.match(name) or name.startswith("gemini")):
        return []
    always = {"low", "medium", "high"}
    return [one for one in EFFORTS if entry.get(f"supports_{one}_reasoning_effort", one in always)]


if __name__ == "__main__":
    main()
