"""The body of a Chat Completions request, with what differs between providers."""

from typing import Any

from longhaul.settings import Settings

EFFORT_MODELS = ("gpt-5", "o1", "o3", "o4")
COST_ENDPOINTS = ("openrouter.ai", "127.0.0.1", "localhost")


def is_anthropic(model: str) -> bool:
    return model.startswith(("anthropic/", "claude-"))


def knows_cost(settings: Settings) -> bool:
    """Whether the endpoint answers `usage: {include: true}` with a cost; others may refuse the unknown field."""
    if settings.model_usage_cost is not None:
        return settings.model_usage_cost
    return any(host in settings.openai_base_url for host in COST_ENDPOINTS)


def request_body(
    settings: Settings, *, model: str, mode: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> dict[str, Any]:
    """A streaming request; `tools` in the OpenAI shape."""
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "stream_options": {"include_usage": True},
    }
    if tools:
        body["tools"] = tools
    if knows_cost(settings):
        body["usage"] = {"include": True}
    if mode == "extended_thinking" and settings.reasoning_max_tokens > 0:
        if is_anthropic(model):
            body["reasoning"] = {"max_tokens": settings.reasoning_max_tokens}
        elif model.rsplit("/", 1)[-1].startswith((*EFFORT_MODELS, "offline")):
            body["reasoning_effort"] = "high"
    if is_anthropic(model):
        _mark_cacheable(body, settings.prompt_cache_ttl)
    return body


def _mark_cacheable(body: dict[str, Any], ttl: str) -> None:
    """Cache breakpoints behind the two prefixes that all calls share: the system prompt and the tools."""
    control = {"type": "ephemeral", "ttl": ttl}
    first = body["messages"][0]
    if first["role"] == "system":
        block = {"type": "text", "text": first["content"], "cache_control": control}
        body["messages"] = [{"role": "system", "content": [block]}, *body["messages"][1:]]
    if body.get("tools"):
        body["tools"] = [*body["tools"][:-1], {**body["tools"][-1], "cache_control": control}]
