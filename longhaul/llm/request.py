"""Builds the body of a Chat Completions request from a session's rows, with what differs between providers."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from longhaul.llm import prompts
from longhaul.settings import Settings
from longhaul.tools.registry import defect_of_arguments

CHARS_PER_TOKEN = 4
NEWEST_KEPT = 20
#: The beginning of a tag that only we may write.
MARKUP = re.compile(r"<(?=\s*/?\s*(?:user_follow_up|user_context|turn_stopped)\b)", re.IGNORECASE)
EFFORT_MODELS = ("gpt-5", "o1", "o3", "o4")
COST_ENDPOINTS = ("openrouter.ai", "127.0.0.1", "localhost")


def is_anthropic(model: str) -> bool:
    return model.startswith(("anthropic/", "claude-"))


def knows_cost(settings: Settings) -> bool:
    """Whether the endpoint answers `usage: {include: true}` with a cost; others may refuse the unknown field."""
    if settings.model_usage_cost is not None:
        return settings.model_usage_cost
    return any(host in settings.openai_base_url for host in COST_ENDPOINTS)


def request_for(
    settings: Settings,
    *,
    model: str,
    mode: str,
    session_context: str | None,
    rows: Sequence[Any],
    tools: list[dict[str, Any]],
) -> dict[str, Any]:
    """The body of the request that answers a conversation's `rows`, shortened to the model's window."""
    messages = [
        system_message(settings.system_prompt, session_context),
        *openai_messages(rows, tool_result_max=settings.tool_result_max_chars),
    ]
    shortened = fit(messages, int(settings.context_window * settings.context_share))
    return request_body(settings, model=model, mode=mode, messages=shortened, tools=tools)


def request_body(
    settings: Settings, *, model: str, mode: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> dict[str, Any]:
    """The body of a streaming request; `tools` in the OpenAI shape."""
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


def system_message(extra: str, session_context: str | None) -> dict[str, Any]:
    """The built-in system prompt, the operator's addition, and the context that a parent gave to its sub-session."""
    return {"role": "system", "content": "\n\n".join(filter(None, (prompts.SYSTEM, extra, session_context)))}


def openai_messages(rows: Sequence[Any], *, tool_result_max: int) -> list[dict[str, Any]]:
    """Rows in order, as messages: results directly follow their calls, consecutive assistant rows are merged.

    Results are matched by turn and call id, not by position. A call without a result (its turn is being repaired) gets
    a `lost` one, so that the endpoint never refuses the conversation.
    """
    results = {(row.turn_id, row.tool_call_id): row for row in rows if row.role == "tool"}
    newest_user = next((row for row in reversed(rows) if row.role == "user" and row.kind != "follow_up"), None)
    newest_turn = newest_user.turn_id if newest_user is not None else None
    messages: list[dict[str, Any]] = []
    follow_ups: list[Any] = []
    for row in rows:
        if row.kind == "follow_up":
            follow_ups.append(row)
            continue
        if row.role == "tool":
            continue
        if follow_ups:
            messages.append(follow_up_message(follow_ups, newest_turn))
            follow_ups = []
        if row.role == "user":
            page = page_of(row) if row is newest_user else ""
            messages.append({"role": "user", "content": escaped(row.content) + page})
        elif row.role == "assistant" and row.kind != "error":
            _append_assistant(messages, row)
            messages += [_result(results, row.turn_id, call, tool_result_max) for call in row.tool_calls or ()]
        elif row.role == "system" and row.kind == "stop":
            # Not a system message: some endpoints refuse those in the middle of a conversation.
            messages.append({"role": "user", "content": f"<turn_stopped>{prompts.STOPPED}</turn_stopped>"})
    if follow_ups:
        messages.append(follow_up_message(follow_ups, newest_turn))
    return messages


def escaped(text: str) -> str:
    """`text` in which nothing can be taken for our own markup, as a person, a page or a tool may have written it."""
    return MARKUP.sub("&lt;", text)


def _append_assistant(messages: list[dict[str, Any]], row: Any) -> None:
    calls = [_sendable(call) for call in row.tool_calls or ()]
    last = messages[-1] if messages else None
    if last is not None and last["role"] == "assistant" and "tool_calls" not in last:
        last["content"] = "\n\n".join(filter(None, (last["content"], row.content)))
        if calls:
            last["tool_calls"] = calls
        return
    if not row.content and not calls:
        return
    message: dict[str, Any] = {"role": "assistant", "content": row.content or None}
    messages.append({**message, "tool_calls": calls} if calls else message)


def _sendable(call: dict[str, Any]) -> dict[str, Any]:
    """A call as endpoints accept it: some refuse arguments that are not an object, even if the model wrote them."""
    written = call["function"]["arguments"]
    sent = written if written.strip() else "{}"
    if defect_of_arguments(written):
        sent = orjson.dumps({"malformed": written}).decode()
    return {"id": call["id"], "type": "function", "function": {**call["function"], "arguments": sent}}


def _result(results: dict[tuple[str, str], Any], turn_id: str, call: dict[str, Any], most: int) -> dict[str, Any]:
    row = results.get((turn_id, call["id"]))
    content = row.content if row is not None else prompts.LOST_CALL
    if most and len(content) > most:
        content = content[:most] + prompts.CUT_RESULT.format(shown=most, total=len(content))
    return {"role": "tool", "tool_call_id": call["id"], "content": escaped(content)}


def page_of(row: Any) -> str:
    """The page on which a user's message was written, as a block behind its text; "" without one."""
    context = row.context or {}
    page = "\n".join(filter(None, (context.get("url"), context.get("content"))))
    return f"\n\n<user_context>\n{escaped(page)}\n</user_context>" if page else ""


def follow_up_message(rows: Sequence[Any], newest_turn: str | None = None) -> dict[str, Any]:
    """Messages that arrived while the turn worked, as one numbered block, capped; the rows keep the whole texts.

    Pages that have a content follow the block, for messages of the newest turn only.
    """
    entries: list[str] = []
    pages: list[str] = []
    room = prompts.FOLLOW_UP_MAX
    for number, row in enumerate(rows, start=1):
        text = str(row.content)
        shown = text[: max(0, min(prompts.FOLLOW_UP_ENTRY_MAX, room))]
        room -= len(shown)
        note = f" [cut: {len(text) - len(shown)} more characters]" if len(shown) < len(text) else ""
        context = row.context or {}
        extra = "".join(
            f"\n   {label}: {value}"
            for label, value in (("page", context.get("url")), ("files", ", ".join(context.get("file_ids") or ())))
            if value
        )
        entries.append(escaped(f"{number}. {shown}{note}{extra}"))
        if context.get("content") and row.turn_id == newest_turn:
            pages.append(page_of(row))
    block = "<user_follow_up>\n" + "\n".join(entries) + "\n</user_follow_up>"
    return {"role": "user", "content": block + "".join(pages)}


def fit(messages: list[dict[str, Any]], max_tokens: int) -> list[dict[str, Any]]:
    """`messages` (system first), shortened to a window: the oldest are dropped, but never the system prompt, the first
    user message, the newest messages, or a tool call without its results."""
    sizes = [_size(message) for message in messages]
    excess = sum(sizes) - max_tokens * CHARS_PER_TOKEN
    if excess <= 0 or len(messages) <= NEWEST_KEPT + 2:
        return messages
    first_user = next((index for index, message in enumerate(messages) if message["role"] == "user"), 0)
    head = first_user + 1
    cut = head
    while cut < len(messages) - NEWEST_KEPT and excess > 0:
        excess -= sizes[cut]
        cut += 1
    return messages[:head] + messages[_between_calls(messages, head, cut) :]


def _between_calls(messages: list[dict[str, Any]], head: int, cut: int) -> int:
    """`cut`, moved if it separates a call from its results: behind them, or before the call if nothing would remain."""
    behind = cut
    while behind < len(messages) and messages[behind]["role"] == "tool":
        behind += 1
    if behind < len(messages):
        return behind
    while cut > head and messages[cut]["role"] == "tool":
        cut -= 1
    return cut


def _size(message: dict[str, Any]) -> int:
    return len(message.get("content") or "") + sum(_call_size(message.get("tool_calls") or ()))


def _call_size(calls: Iterable[dict[str, Any]]) -> Iterable[int]:
    return (len(call["function"]["arguments"]) + len(call["function"]["name"]) for call in calls)
