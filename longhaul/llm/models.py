"""What is known of models: windows, abilities and prices, from LiteLLM's table, with the operator's overrides."""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from longhaul.contracts import Usage

if TYPE_CHECKING:
    from longhaul.settings import Settings

#: Written by `make models`.
TABLE = Path(__file__).parent / "models.json"
UNKNOWN_WINDOW = 128_000
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
Dollars = float
_DATE = re.compile(r"[-@](20\d\d-\d\d-\d\d|20\d{6}|latest)$")
#: A name with another prefix, such as `deepseek-ai/…`, is of open weights, whose host sets its own price.
_PRICED_PREFIXES = frozenset({"", "openai", "anthropic", "google", "gemini", "x-ai", "xai"})


class Prices(BaseModel):
    """US dollars for a million tokens. A price that is missing is that of `input`; `cache_creation_1h` is that of
    tokens which a provider keeps in its cache for an hour."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Dollars = Field(ge=0)
    output: Dollars = Field(ge=0)
    cached: Dollars | None = Field(None, ge=0)
    cache_creation: Dollars | None = Field(None, ge=0)
    cache_creation_1h: Dollars | None = Field(None, ge=0)

    def microdollars(self, usage: Usage, cache_ttl: str) -> int:
        """What these tokens cost. `cache_ttl`: how long the provider is asked to keep a prompt."""
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_creation_tokens)
        cached = self.input if self.cached is None else self.cached
        created = self.cache_creation_1h if cache_ttl == "1h" and self.cache_creation_1h else self.cache_creation
        return round(
            fresh * self.input
            + usage.cached_tokens * cached
            + usage.cache_creation_tokens * (self.input if created is None else created)
            + usage.completion_tokens * self.output
        )


class LongPrompt(Prices):
    """Prices of all tokens of a call whose prompt has more than `above` tokens."""

    above: int = Field(gt=0)


class ModelInfo(BaseModel):
    """One model.

    `window`: tokens of a prompt. `output`: tokens of an answer; 0: not known. `efforts`: the values of
    `reasoning_effort` that it takes. `always_thinks`: its reasoning cannot be turned off. `prices`: None if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(UNKNOWN_WINDOW, ge=1000)
    output: int = Field(0, ge=0)
    tools: bool = False
    vision: bool = False
    reasoning: bool = False
    always_thinks: bool = False
    efforts: tuple[Effort, ...] = ()
    prices: Prices | None = None
    long_prompt: LongPrompt | None = None

    def microdollars(self, usage: Usage, cache_ttl: str) -> int | None:
        """What a call costs by its tokens; None if the prices are unknown."""
        if self.prices is None:
            return None
        is_long = self.long_prompt is not None and usage.prompt_tokens > self.long_prompt.above
        prices = self.long_prompt if self.long_prompt is not None and is_long else self.prices
        return prices.microdollars(usage, cache_ttl)

    def overridden(self, by: "ModelInfo") -> "ModelInfo":
        """This model with what the operator has set."""
        values = {name: getattr(by, name) for name in by.model_fields_set}
        if "prices" in values:
            values.setdefault("long_prompt", None)
        return self.model_copy(update=values)


def normalised(name: str) -> str:
    """A model's name without provider and date, as the table has it."""
    return _DATE.sub("", name.lower().rpartition("/")[2]).replace(".", "-")


@cache
def _table() -> dict[str, dict[str, Any]]:
    models: dict[str, dict[str, Any]] = orjson.loads(TABLE.read_bytes())["models"]
    return models


@cache
def known_model(name: str) -> ModelInfo | None:
    """What the table has of a model; None if it has nothing."""
    prefix, _, own = name.lower().rpartition("/")
    plain, _, variant = own.partition(":")
    entry = _table().get(normalised(plain))
    if entry is None:
        return None
    found = ModelInfo.model_validate(entry)
    if variant or prefix not in _PRICED_PREFIXES:
        return found.model_copy(update={"prices": None, "long_prompt": None})
    return found


def model_info(settings: "Settings", name: str) -> ModelInfo:
    """What is known of a model, with `LONGHAUL_MODELS` and `LONGHAUL_CONTEXT_WINDOW` over it."""
    found = known_model(name) or ModelInfo()
    if (override := settings.models.get(name)) is not None:
        found = found.overridden(override)
    return found.model_copy(update={"window": settings.context_window}) if settings.context_window else found
