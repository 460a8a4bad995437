"""Builds the OpenAI messages of a model call from a session's rows."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from longhaul.llm import prompts
from longhaul.llm.failures import defect_of_arguments

CHARS_PER_TOKEN = 4
NEWEST_KEPT = 20


def system_message(extra: str, session_context: str | None) -> dict[str, Any]:
    """The system prompt, what the operator adds, and what a parent told its sub-session."""
    return {"role": "system", "content": "\n\n".join(filter(None, (prompts.SYSTEM, extra, session_context)))}


def openai_messages(rows: Sequence[Any], *, tool_result_max: int) -> list[dict[str, Any]]:
    """Rows in order, as messages: every call has its result right behind it, neighbours of the assistant are merged.

    Results are matched by turn and call id, not by where they stand. Calls without a result (a turn that is being
    mended) get a `lost` one, so the endpoint never refuses the conversation.
    """
    results = {(row.turn_id, row.tool_call_id): row for row in rows if row.role == "tool"}
    newest_user = next((row.sequence for row in reversed(rows) if row.role == "user" and row.kind != "follow_up"), None)
    messages: list[dict[str, Any]] = []
    follow_ups: list[Any] = []
    for row in rows:
        if row.kind == "follow_up":
            follow_ups.append(row)
            continue
        if row.role == "tool":
            continue
        if follow_ups:
            messages.append(follow_up_message(follow_ups))
            follow_ups = []
        if row.role == "user":
            messages.append({"role": "user", "content": _with_context(row, attach=row.sequence == newest_user)})
        elif row.role == "assistant" and row.kind != "error":
            _append_assistant(messages, row)
            messages += [_result(results, row.turn_id, call, tool_result_max) for call in row.tool_calls or ()]
        elif row.role == "system" and row.kind == "stop":
            messages.append({"role": "system", "content": prompts.STOPPED})
    if follow_ups:
        messages.append(follow_up_message(follow_ups))
    return messages


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
    """A call as endpoints take it back: some refuse arguments that are no object, which the model itself once wrote."""
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
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


def _with_context(row: Any, *, attach: bool) -> str:
    """A user's text; the page it was written on goes with the newest message only."""
    context = row.context or {}
    if not attach or not (context.get("url") or context.get("content")):
        return str(row.content)
    page = "\n".join(filter(None, (context.get("url"), context.get("content"))))
    return f"{row.content}\n\n<user_context>\n{page}\n</user_context>"


def follow_up_message(rows: Sequence[Any]) -> dict[str, Any]:
    """Messages that came while the longhaul worked, as one numbered block, capped; the rows keep everything."""
    entries: list[str] = []
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
        entries.append(f"{number}. {shown}{note}{extra}")
    return {"role": "user", "content": "<user_follow_up>\n" + "\n".join(entries) + "\n</user_follow_up>"}


def fit(messages: list[dict[str, Any]], max_tokens: int) -> list[dict[str, Any]]:
    """`messages` (system first) within a window: the oldest go, never the system prompt, the first user message, the
    newest, or a tool call without its results."""
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
    """Where to cut instead, if `cut` lies among the results of a call: behind them, or before the call if nothing
    would be left."""
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
