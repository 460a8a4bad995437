"""Reading a Chat Completions body: what is wrong with it is said as OpenAI says it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


class BadRequestError(Exception):
    """The body is not a request that the real service would take; `param` names the culprit."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The parts of a request that the offline model looks at."""

    model: str
    messages: list[dict[str, Any]]
    tools: frozenset[str]
    stream: bool
    include_usage: bool
    reasoning: bool
    digest: str
    prompt_tokens: int


def text_of(content: Any) -> str:
    """The text of a message's content, which may be a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(p.get("text") or "") for p in content if isinstance(p, dict))
    return ""


def parse_request(raw: bytes, call_key: str) -> ChatRequest:
    """Check and read a body. The call key goes into the digest, so tool call ids differ from turn to turn."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"We could not parse the JSON body of your request: {error}") from None
    if not isinstance(body, dict):
        raise BadRequestError("The body must be a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequestError("you must provide a model parameter", "model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("'messages' must be a non-empty array.", "messages")
    _check_messages(messages)
    if not isinstance(body.get("stream"), bool | None):
        raise BadRequestError("Invalid type for 'stream': expected a boolean.", "stream", "invalid_type")
    return ChatRequest(
        model=model,
        messages=messages,
        tools=frozenset() if body.get("tool_choice") == "none" else _tool_names(body.get("tools")),
        stream=bool(body.get("stream")),
        include_usage=_flag(body.get("stream_options"), "include_usage") or _flag(body.get("usage"), "include"),
        reasoning=_wants_reasoning(body),
        digest=blake2b(orjson.dumps(messages) + call_key.encode(), digest_size=8).hexdigest(),
        prompt_tokens=max(1, len(raw) // 4),
    )


def _flag(value: Any, name: str) -> bool:
    return isinstance(value, dict) and value.get(name) is True


def _wants_reasoning(body: dict[str, Any]) -> bool:
    effort = body.get("reasoning_effort")
    if effort is not None:
        return str(effort) != "none"
    asked = body.get("reasoning")
    if not isinstance(asked, dict):
        return bool(asked)
    budget = asked.get("max_tokens")
    if isinstance(budget, int | float) and budget <= 0:
        return False
    return asked.get("enabled") is not False and asked.get("effort") != "none"


def _tool_names(tools: Any) -> frozenset[str]:
    if tools is None:
        return frozenset()
    if not isinstance(tools, list):
        raise BadRequestError("Invalid type for 'tools': expected an array.", "tools", "invalid_type")
    names = set()
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            raise BadRequestError(f"Missing required parameter: 'tools[{i}].function.name'.", f"tools[{i}].function")
        names.add(name)
    return frozenset(names)


def _check_messages(messages: list[Any]) -> None:
    """As strict as the real service about tool calls and their results: a broken history must show in tests."""
    open_ids: set[str] = set()
    known_ids: set[str] = set()
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise BadRequestError(f"Invalid value for '{where}.role': {role!r}.", f"{where}.role", "invalid_value")
        content = message.get("content")
        if not isinstance(content, str | list | None):
            raise BadRequestError(f"Invalid type for '{where}.content'.", f"{where}.content", "invalid_type")
        if role == "tool":
            call_id = message.get("tool_call_id")
            if call_id not in known_ids:
                raise BadRequestError(
                    f"Invalid parameter: {where} with role 'tool' must be a response to a preceding message "
                    f"with 'tool_calls' (tool_call_id {call_id!r}).",
                    f"{where}.role",
                )
            open_ids.discard(call_id)
            continue
        if open_ids:
            raise BadRequestError(_UNANSWERED + ", ".join(sorted(open_ids)), f"{where}.role")
        known_ids = _call_ids(message, where) if role == "assistant" else set()
        open_ids = set(known_ids)
    if open_ids:
        raise BadRequestError(_UNANSWERED + ", ".join(sorted(open_ids)), f"messages[{len(messages)}]")


_UNANSWERED = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
    "'tool_call_id'. The following tool_call_ids did not have response messages: "
)


def _call_ids(message: dict[str, Any], where: str) -> set[str]:
    calls = message.get("tool_calls")
    if calls is None:
        return set()
    if not isinstance(calls, list) or not calls:
        raise BadRequestError(f"Invalid '{where}.tool_calls': a non-empty array.", f"{where}.tool_calls")
    ids: set[str] = set()
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not (isinstance(function, dict) and isinstance(call.get("id"), str)) or not (
            isinstance(function.get("name"), str) and isinstance(function.get("arguments"), str)
        ):
            raise BadRequestError(f"Invalid entry in '{where}.tool_calls'.", f"{where}.tool_calls", "invalid_type")
        if call["id"] in ids:
            raise BadRequestError(f"Duplicate tool call id {call['id']!r}.", f"{where}.tool_calls")
        ids.add(call["id"])
    return ids
