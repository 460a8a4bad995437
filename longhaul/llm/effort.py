"""How much a model is asked to think: one scale, `none` to `max`, in the words of each family of models."""

from typing import Any

from longhaul.llm.models import EFFORTS, Effort, ModelInfo, known_model

#: Families that take `reasoning_effort`, for models that the table does not have yet. The offline model takes all.
_OPENAI = ("gpt-5", "o1", "o3", "o4")
_OPENAI_EFFORTS: tuple[Effort, ...] = ("low", "medium", "high")
#: The fewest reasoning tokens that Anthropic models take.
_BUDGET_MIN = 1024
#: Of the tokens that `high` stands for.
_SHARES: dict[Effort, float] = {"minimal": 0.0, "low": 0.25, "medium": 0.5, "high": 1.0, "xhigh": 2.0, "max": 4.0}


def is_anthropic(model: str) -> bool:
    return model.startswith(("anthropic/", "claude-"))


def is_openai_reasoning(model: str) -> bool:
    """Whether a model takes `max_completion_tokens` in place of `max_tokens`."""
    return model.rpartition("/")[2].startswith(_OPENAI)


def reasoning_fields(model: str, info: ModelInfo, effort: Effort, budget: int) -> dict[str, Any]:
    """The fields of a request that ask a model for so much reasoning; none for models that take no such field.

    A model that always thinks gets the least that it takes in place of `none`; one that lacks an effort, the nearest
    below it. `budget`: the reasoning tokens of `high`, for Anthropic models.
    """
    if is_anthropic(model):
        tokens = _budget(info, effort, budget)
        return {"reasoning": {"max_tokens": tokens}} if tokens else {}
    taken = efforts_of(model, info)
    return {"reasoning_effort": _nearest(effort, taken)} if taken else {}


def efforts_of(model: str, info: ModelInfo) -> tuple[Effort, ...]:
    """The efforts that a model tells apart."""
    own = model.rpartition("/")[2]
    if is_anthropic(model):
        return EFFORTS[1:] if info.always_thinks else EFFORTS
    if info.efforts or known_model(model) is not None:
        return info.efforts
    if own.startswith("offline"):
        return EFFORTS
    return _OPENAI_EFFORTS if own.startswith(_OPENAI) else ()


def _nearest(effort: Effort, taken: tuple[Effort, ...]) -> Effort:
    """The most of what is `taken` that is not above `effort`, else the least."""
    ordered = sorted(taken, key=EFFORTS.index)
    return next((one for one in reversed(ordered) if EFFORTS.index(one) <= EFFORTS.index(effort)), ordered[0])


def _budget(info: ModelInfo, effort: Effort, budget: int) -> int:
    if effort == "none":
        return _BUDGET_MIN if info.always_thinks else 0
    tokens = max(min(_BUDGET_MIN, budget), round(budget * _SHARES[effort]))
    # The answer needs room behind the reasoning.
    return min(tokens, info.output // 2) if info.output else tokens
