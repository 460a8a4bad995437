"""The JSON of models, and of chat completions in OpenAI's form."""

from typing import Literal

from pydantic import Field

from api.schemas.base import Answer
from longhaul.llm.models import LongPrompt, Prices


class CompletionFunction(Answer):
    name: str
    arguments: str = Field(description="A JSON object.")


class CompletionCall(Answer):
    """A call of one of the caller's tools; the next request brings its result."""

    id: str
    type: Literal["function"] = "function"
    function: CompletionFunction


class CompletionText(Answer):
    role: Literal["assistant"] = "assistant"
    content: str | None
    tool_calls: list[CompletionCall] = Field([], description="Left out where there are none.")


class CompletionChoice(Answer):
    index: int
    message: CompletionText
    finish_reason: Literal["stop", "tool_calls"]


class CompletionUsage(Answer):
    """Of the whole turn; of an answer that ends with tool calls, or follows them, that of its own model calls."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class Completion(Answer):
    """OpenAI's `chat.completion`. The content holds all texts of the turn, with an empty line between them."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


class Abilities(Answer):
    """What a model can do, as far as it is known."""

    tools: bool
    vision: bool
    reasoning: bool
    always_thinks: bool = Field(description="Its reasoning cannot be turned off.")
    efforts: list[str] = Field(description="The efforts that it tells apart; another one becomes the nearest.")


class Model(Answer):
    """A tier or a model that a session or message may choose."""

    id: str = Field(examples=["standard"])
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "longhaul"
    model: str = Field(description="The model behind a tier; else the id.", examples=["gpt-4.1"])
    tier: str = Field(description="The tier of the model, or the one that it counts as.", examples=["standard"])
    fallbacks: list[str] = Field(description="Models that answer in its place, in order.")
    window: int = Field(description="Tokens of a prompt.", examples=[1_047_576])
    max_output_tokens: int | None = Field(description="Of one answer.", examples=[32_768])
    abilities: Abilities | None = Field(description="Null: nothing is known of this model.")
    prices: Prices | None = Field(description="US dollars for a million tokens. Null: not known.")
    long_prompt: LongPrompt | None = Field(description="Prices of a call whose prompt has more than `above` tokens.")


class Models(Answer):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: list[Model]
