"""Builds the body of a Chat Completions request from a session's rows, with what differs between providers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from longhaul.llm import prompts
from longhaul.llm.effort import is_anthropic, is_openai_reasoning, reasoning_fields
from longhaul.llm.fit import fit
from longhaul.llm.images import files_of
from longhaul.llm.models import EFFORTS, Effort, ModelInfo, model_info
from longhaul.llm.responses import ENCRYPTED, EncryptedReasoning, without_encrypted
from longhaul.llm.tokens import tokens_of_tools
from longhaul.settings import Settings
from longhaul.tools.registry import defect_of_arguments

#: The beginning of a tag that only we may write.
MARKUP = re.compile(
    r"<(?=\s*/?\s*(?:user_follow_up|user_context|user_files|turn_stopped|session_context|user_profile"
    r"|conversation_summary|system_note)\b)",
    re.IGNORECASE,
)
#: Of a message that is not in its final form yet.
IMAGES = "images"
NO_IMAGES: Mapping[str, str] = {}
NOT_ENCRYPTED: Mapping[str, Sequence[EncryptedReasoning]] = {}
COST_ENDPOINTS = ("openrouter.ai", "127.0.0.1", "localhost")


def knows_cost(settings: Settings) -> bool:
    """Whether the endpoint answers `usage: {include: true}` with a cost; others may refuse the unknown field."""
    if settings.model_usage_cost is not None:
        return settings.model_usage_cost
    return any(host in settings.openai_base_url for host in COST_ENDPOINTS)


class Request(NamedTuple):
    """The body of a request to a model, and how many tokens its prompt was estimated to take, not calibrated.

    `shortened`: the messages did not fit, so some of them are cut or left out.
    """

    body: dict[str, Any]
    estimated_tokens: int
    shortened: bool
    model: ModelInfo


class About(NamedTuple):
    """What the model is told about a session, behind its first message: who the user is, what a parent gave to its
    sub-session, and a summary of what followed that message and is no longer given word for word."""

    user_profile: str | None = None
    session_context: str | None = None
    summary: str | None = None

    def blocks(self) -> str:
        blocks = (("user_profile", self.user_profile), ("session_context", self.session_context))
        summary = f"{prompts.SUMMARY_FOLLOWS}\n{self.summary}" if self.summary else ""
        return "".join(block(tag, text or "") for tag, text in (*blocks, ("conversation_summary", summary)))


NOTHING = About()


def room(window: int, share: float, token_scale: float | None) -> float:
    """The estimated tokens that a request may take: beyond the share at which a compaction is due, half of the rest.

    The other half is for the answer. `token_scale`: how many tokens the endpoint counts for an estimated one.
    """
    return window * (1 + share) / 2 / (token_scale or 1.0)


def request_for(
    settings: Settings,
    *,
    model: str,
    effort: Effort,
    about: About,
    rows: Sequence[Any],
    tools: list[dict[str, Any]],
    max_tokens: float,
    images: Mapping[str, str] = NO_IMAGES,
    encrypted: Mapping[str, Sequence[EncryptedReasoning]] = NOT_ENCRYPTED,
) -> Request:
    """The request that answers a conversation's `rows`, shortened to `max_tokens` estimated tokens.

    `images`: those that the model is shown, as data URLs by the id of their file. `encrypted`: reasoning for the
    endpoint alone, by assistant row; it goes first when the request is too long.
    """
    most = settings.tool_result_max_chars
    messages = [
        system_message(settings.system_prompt),
        *openai_messages(rows, tool_result_max=most, about=about, images=images, encrypted=encrypted),
    ]
    of_tools = tokens_of_tools(tools)
    fitted = fit(messages, max_tokens - of_tools)
    if encrypted and fitted.messages is not messages:
        messages = without_encrypted(messages)
        fitted = fit(messages, max_tokens - of_tools)
    shown = [with_images(message) for message in fitted.messages]
    body = request_body(settings, model=model, effort=effort, messages=shown, tools=tools)
    tokens = round(fitted.tokens + of_tools)
    return Request(body, tokens, shortened=fitted.messages is not messages, model=model_info(settings, model))


def effort_of(settings: Settings, mode: str, chosen: str) -> Effort:
    """How much is to be thought: what the message has `chosen`, else what its mode stands for."""
    if settings.reasoning_max_tokens <= 0:
        return "none"
    named = next((effort for effort in EFFORTS if effort == chosen), None)
    return named or (settings.reasoning_effort if mode == "extended_thinking" else "none")


def request_body(
    settings: Settings, *, model: str, effort: Effort, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
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
    body |= reasoning_fields(model, model_info(settings, model), effort, settings.reasoning_max_tokens)
    if is_anthropic(model):
        _mark_cacheable(body, settings.prompt_cache_ttl)
    return body


def with_answer_limit(body: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The request with a limit to its answer. Reasoning that is asked for by a number of tokens comes on top."""
    limit = tokens + int(body.get("reasoning", {}).get("max_tokens", 0))
    # Each of the two is refused by models that know the other.
    return {**body, "max_completion_tokens" if is_openai_reasoning(body["model"]) else "max_tokens": limit}


def answer_limit(body: dict[str, Any]) -> int:
    """The limit that `with_answer_limit` has set."""
    return int(body.get("max_completion_tokens") or body["max_tokens"])


def _mark_cacheable(body: dict[str, Any], ttl: str) -> None:
    """Cache breakpoints behind the two prefixes that all calls share: the system prompt and the tools."""
    control = {"type": "ephemeral", "ttl": ttl}
    first = body["messages"][0]
    if first["role"] == "system":
        block = {"type": "text", "text": first["content"], "cache_control": control}
        body["messages"] = [{"role": "system", "content": [block]}, *body["messages"][1:]]
    if body.get("tools"):
        body["tools"] = [*body["tools"][:-1], {**body["tools"][-1], "cache_control": control}]


def system_message(extra: str) -> dict[str, Any]:
    """The built-in system prompt and the operator's addition: the same bytes for all users, sessions and turns."""
    return {"role": "system", "content": "\n\n".join(filter(None, (prompts.SYSTEM, extra)))}


def with_images(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose `images` are parts of its content, as endpoints take them. Until then its content is one text,
    which can be cut."""
    if IMAGES not in message:
        return message
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in message[IMAGES]]
    others = {name: value for name, value in message.items() if name != IMAGES}
    return {**others, "content": [{"type": "text", "text": message["content"]}, *parts]}


def openai_messages(
    rows: Sequence[Any],
    *,
    tool_result_max: int,
    about: About = NOTHING,
    images: Mapping[str, str] = NO_IMAGES,
    encrypted: Mapping[str, Sequence[EncryptedReasoning]] = NOT_ENCRYPTED,
) -> list[dict[str, Any]]:
    """Rows in order, as messages: results directly follow their calls, consecutive assistant rows are merged.

    What the model is told `about` the session follows the text of the first user message, so that all sessions share
    the bytes before it.

    Results are matched by turn and call id, not by position. A call without a result (its turn is being repaired) gets
    a `lost` one, so that the endpoint never refuses the conversation.
    """
    results = {(row.turn_id, row.tool_call_id): row for row in rows if row.role == "tool"}
    newest_user = next((row for row in reversed(rows) if row.role == "user" and row.kind != "follow_up"), None)
    newest_turn = newest_user.turn_id if newest_user is not None else None
    first_user = next((row for row in rows if row.role == "user" and row.kind != "follow_up"), None)
    messages: list[dict[str, Any]] = []
    follow_ups: list[Any] = []
    for row in rows:
        if row.kind == "follow_up":
            follow_ups.append(row)
            continue
        if row.role == "tool":
            continue
        if follow_ups:
            messages.append(follow_up_message(follow_ups, newest_turn, images))
            follow_ups = []
        if row.role == "user":
            behind = about.blocks() if row is first_user else ""
            behind += page_of(row) if row is newest_user else ""
            behind += block("user_files", "\n".join(map(_file_line, files_of(row))))
            messages.append({"role": "user", "content": escaped(row.content) + behind, **_images_of([row], images)})
        elif row.role == "assistant" and row.kind != "error":
            _append_assistant(messages, row, encrypted.get(row.id, ()) if encrypted else ())
            messages += [_result(results, row.turn_id, call, tool_result_max) for call in row.tool_calls or ()]
        elif row.role == "system" and row.kind == "stop":
            # Not a system message: some endpoints refuse those in the middle of a conversation.
            messages.append({"role": "user", "content": f"<turn_stopped>{prompts.STOPPED}</turn_stopped>"})
        elif row.role == "system" and row.kind == "message":
            messages.append({"role": "user", "content": f"<system_note>{escaped(row.content)}</system_note>"})
    if follow_ups:
        messages.append(follow_up_message(follow_ups, newest_turn, images))
    return messages


def _images_of(rows: Sequence[Any], images: Mapping[str, str]) -> dict[str, Any]:
    shown = [images[file["id"]] for row in rows for file in files_of(row) if file["id"] in images]
    return {IMAGES: shown} if shown else {}


def _file_line(file: dict[str, Any]) -> str:
    return f"{file['path']} ({file['media_type']}, {file['size']} bytes)"


def escaped(text: str) -> str:
    """`text` in which nothing can be taken for our own markup, as a person, a page or a tool may have written it."""
    return MARKUP.sub("&lt;", text)


def _append_assistant(messages: list[dict[str, Any]], row: Any, encrypted: Sequence[EncryptedReasoning]) -> None:
    calls = [_sendable(call) for call in row.tool_calls or ()]
    last = messages[-1] if messages else None
    if last is not None and last["role"] == "assistant" and "tool_calls" not in last:
        last["content"] = "\n\n".join(filter(None, (last["content"], row.content)))
        if calls:
            last["tool_calls"] = calls
        if encrypted:
            last[ENCRYPTED] = [*last.get(ENCRYPTED, ()), *encrypted]
        return
    if not row.content and not calls:
        return
    message: dict[str, Any] = {"role": "assistant", "content": row.content or None}
    if encrypted:
        message[ENCRYPTED] = [*encrypted]
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
        content = content[:most] + prompts.CUT_RESULT.format(shown=most, call_id=call["id"])
    if row is not None and (arguments := (row.context or {}).get("new_arguments")):
        content = prompts.NEW_ARGUMENTS.format(arguments=arguments) + content
    return {"role": "tool", "tool_call_id": call["id"], "content": escaped(content)}


def page_of(row: Any) -> str:
    """The page on which a user's message was written, as a block behind its text; "" without one."""
    context = row.context or {}
    return block("user_context", "\n".join(filter(None, (context.get("url"), context.get("content")))))


def block(tag: str, text: str) -> str:
    """A text in our markup, to stand behind the text of a message; "" for an empty one."""
    return f"\n\n<{tag}>\n{escaped(text)}\n</{tag}>" if text else ""


def follow_up_message(
    rows: Sequence[Any], newest_turn: str | None = None, images: Mapping[str, str] = NO_IMAGES
) -> dict[str, Any]:
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
            for label, value in (("page", context.get("url")), ("files", ", ".join(map(_file_line, files_of(row)))))
            if value
        )
        entries.append(escaped(f"{number}. {shown}{note}{extra}"))
        if context.get("content") and row.turn_id == newest_turn:
            pages.append(page_of(row))
    block = "<user_follow_up>\n" + "\n".join(entries) + "\n</user_follow_up>"
    return {"role": "user", "content": block + "".join(pages), **_images_of(rows, images)}
