"""Settings of the models: which ones answer, how a failing one is retried, how much they think and read."""

import re
from typing import Annotated, Literal, NamedTuple

import orjson
from pydantic import BaseModel, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from longhaul.llm.models import Effort, ModelInfo
from longhaul.settings.values import SPLIT_AT_COMMAS, Count, Seconds

WINDOW_MIN = 1000
#: Who may choose a model, in `LONGHAUL_MODEL_ACCESS`.
USERS_OF_MODEL = re.compile(r"(?:tier|role):[^\s|,=]{1,64}")
Tier = Literal["standard", "advanced"]
TIERS: tuple[Tier, ...] = ("standard", "advanced")
ModelNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], NoDecode, SPLIT_AT_COMMAS]


class ModelChoice(NamedTuple):
    """A model, and the tier that it belongs to; one that belongs to none counts as `standard`."""

    tier: Tier
    model: str


class Models(BaseModel):
    """Models"""

    model_standard: str = Field("gpt-4.1", description="Model of tier `standard`.")
    model_advanced: str = Field("gpt-5", description="Model of tier `advanced`.")
    model_small: str = Field("gpt-4.1-mini", description="Model that titles new sessions. Empty: no titles.")
    model_standard_fallbacks: ModelNames = Field(
        [], description="Models that are tried in this order when `LONGHAUL_MODEL_STANDARD` fails, comma-separated."
    )
    model_advanced_fallbacks: ModelNames = Field([], description="The same for `LONGHAUL_MODEL_ADVANCED`.")
    model_fallback_after: Annotated[float, Field(ge=0)] = Field(
        30.0,
        description="Seconds a failing model call is retried before the next fallback model is tried. The last one is "
        "retried for `LONGHAUL_MODEL_RETRY_SECONDS`.",
    )
    model_down_seconds: Annotated[float, Field(ge=0)] = Field(
        60.0,
        description="Seconds that a model with a fallback counts as down after its retries were used up: calls begin "
        "with the fallback, then one tries the model again. 0: each turn tries it.",
    )
    allowed_models: ModelNames = Field(
        [],
        description="Models that a session or message may choose, beside those of the tiers, comma-separated.",
    )
    model_access: Annotated[dict[str, list[str]], NoDecode] = Field(
        {},
        description="Models that only some users may choose: `gpt-5=tier:PRO|role:research,o3=role:research`. All "
        "others are for everybody, and so is `LONGHAUL_MODEL_STANDARD`.",
    )
    models: Annotated[dict[str, ModelInfo], NoDecode] = Field(
        {},
        description='What differs from what is known of models, as JSON: `{"my-model": {"window": 32000, '
        '"vision": true, "prices": {"input": 0.5, "output": 1.5}, "efforts": ["none", "high"]}}`. Prices are US '
        "dollars for a million tokens.",
    )
    model_retry_seconds: Annotated[float, Field(ge=0)] = Field(
        600.0, description="Seconds a failing model call is retried before the turn fails. 0: not at all."
    )
    model_backoff_base: Seconds = Field(0.5, description="Seconds before the first retry; with jitter.")
    model_backoff_factor: Annotated[float, Field(ge=1)] = Field(2.0, description="Growth of that wait.")
    model_backoff_max: Seconds = Field(30.0, description="Cap of that wait in seconds, and of an honoured Retry-After.")
    model_idle_timeout: Seconds = Field(
        120.0, description="Seconds without a chunk after which a stream counts as broken."
    )
    model_connect_timeout: Seconds = Field(10.0, description="Seconds to reach the endpoint.")
    model_max_seconds: Seconds = Field(7200.0, description="Seconds one model call may take, retries included.")
    model_api: Literal["auto", "chat", "responses"] = Field(
        "auto",
        description="API of the endpoint: Chat Completions or Responses. `auto`: Chat Completions, and Responses for a "
        "model whose endpoint refuses the former.",
    )
    model_usage_cost: bool | None = Field(
        None, description="Ask the endpoint for `usage.cost`. Unset: where it is known to answer."
    )
    model_late_bills: bool | None = Field(
        None,
        description="Ask the endpoint for the bills of calls that broke off (`GET /generation?id=`, as OpenRouter "
        "answers it). Unset: where it is known to answer.",
    )
    budget_answer_tokens: Annotated[int, Field(ge=1)] = Field(
        16_384,
        description="Tokens that one answer may have in a session with a budget of money: its cost is reserved before.",
    )
    reasoning_effort: Effort = Field(
        "high", description="How much a model thinks in mode `extended_thinking`, unless a message says it."
    )
    reasoning_max_tokens: int = Field(
        8192,
        description="Reasoning tokens of effort `high` for Anthropic models; <= 0 turns all models' reasoning off.",
    )
    prompt_cache_ttl: Literal["5m", "1h"] = Field("1h", description="Prompt cache of Anthropic models.")
    system_prompt: str = Field("", description="Added behind the built-in system prompt, the same for all users.")
    context_window: Count = Field(
        0, description="Tokens of every model's window, at least 1000. 0: each model's own; 128,000 if it is unknown."
    )
    context_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7, description="Share of the window to fill; a request may take half of the rest too, the answer the other."
    )
    tool_result_max_chars: Count = Field(
        70_000, description="Characters of one tool result that the model is shown at once."
    )

    @field_validator("model_access", mode="before")
    @classmethod
    def _read_access(cls, value: object) -> object:
        if isinstance(value, str):
            pairs = [part.rpartition("=") for part in value.split(",") if part.strip()]
            value = {model.strip(): [who.strip() for who in users.split("|")] for model, _, users in pairs}
        return value

    @field_validator("model_access")
    @classmethod
    def _known_users(cls, access: dict[str, list[str]]) -> dict[str, list[str]]:
        for model, users in access.items():
            if not model or not all(USERS_OF_MODEL.fullmatch(user) for user in users):
                raise ValueError("write model=tier:NAME|role:name, with names of one word")
        return {
            model: [user.upper().replace("TIER:", "tier:") if user.startswith("tier:") else user for user in users]
            for model, users in access.items()
        }

    @model_validator(mode="after")
    def _somebody_answers_everybody(self) -> "Models":
        if self.model_standard in self.model_access:
            raise ValueError(
                f"LONGHAUL_MODEL_ACCESS cannot keep {self.model_standard} for some: it answers everybody as "
                "LONGHAUL_MODEL_STANDARD"
            )
        return self

    @field_validator("models", mode="before")
    @classmethod
    def _models_as_json(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return orjson.loads(value or "{}")
        except orjson.JSONDecodeError as error:
            raise ValueError(f"a JSON object; {error}") from None

    @field_validator("context_window")
    @classmethod
    def _usable_window(cls, value: int) -> int:
        if 0 < value < WINDOW_MIN:
            raise ValueError(f"0, or at least {WINDOW_MIN}")
        return value

    def model_of(self, tier: str) -> str:
        """The model of a tier."""
        return self.model_advanced if tier == "advanced" else self.model_standard

    def choose(self, name: str) -> ModelChoice | None:
        """What a session or message chooses by the name of a tier or model; None if it may not."""
        for tier in TIERS:
            if name in (tier, self.model_of(tier)):
                return ModelChoice(tier, self.model_of(tier))
        return ModelChoice("standard", name) if name in self.allowed_models else None

    @property
    def roles_of_models(self) -> frozenset[str]:
        """The roles that a model is kept for."""
        users = (user for users in self.model_access.values() for user in users)
        return frozenset(user.removeprefix("role:") for user in users if user.startswith("role:"))

    def models_for(self, model: str, tier: str) -> list[str]:
        """The models that answer in place of `model`, in order, itself first: those of the tier that it belongs to."""
        fallbacks = self.model_advanced_fallbacks if tier == "advanced" else self.model_standard_fallbacks
        return list(dict.fromkeys([model, *(fallbacks if model == self.model_of(tier) else ())]))
