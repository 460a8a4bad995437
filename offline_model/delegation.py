"""Delegated work: which sub-sessions of an entry still run, and what the others answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from offline_model.conversation import DoneCall, ToolCall
from offline_model.phrases import SUFFIX
from offline_model.rules import Plan, call

_UNFINISHED = frozenset({"running", "queued"})
_MAX_RESPONSE = 2_000


@dataclass(slots=True)
class _Delegated:
    prompt: str
    text: str
    result: dict[str, Any]

    @property
    def sub_id(self) -> str:
        return str(self.result.get("sub_session_id") or "")

    @property
    def unfinished(self) -> bool:
        return bool(self.sub_id) and self.result.get("status") in _UNFINISHED


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, or an empty one for anything else (a tool error is plain text)."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _delegated(plan: Plan, done: list[DoneCall]) -> list[_Delegated]:
    prompts = [json_object(c.arguments).get("prompt") for c in plan.calls]
    found: list[_Delegated] = []
    for made in done:
        arguments, result = json_object(made.arguments), json_object(made.result)
        if made.name == "run_sub_session" and arguments.get("prompt") in prompts:
            prompts.remove(arguments["prompt"])
            found.append(_Delegated(arguments["prompt"], made.result, result))
        elif made.name == "get_sub_session_result":
            for one in found:
                if one.sub_id and one.sub_id == arguments.get("sub_session_id"):
                    one.text = made.result
                    one.result = {"sub_session_id": one.sub_id, **result}
    return found


def polls(plan: Plan, done: list[DoneCall]) -> list[ToolCall]:
    """One call for each sub-session that has not ended. A detached one is left alone."""
    if plan.delegation == "detached":
        return []
    return [
        call("get_sub_session_result", sub_session_id=one.sub_id, wait_if_running=60)
        for one in _delegated(plan, done)
        if one.unfinished
    ]


def joined_answers(plan: Plan, done: list[DoneCall]) -> str:
    """What the sub-sessions said, each under the words it was given."""
    parts = []
    for one in _delegated(plan, done):
        name = one.prompt if len(one.prompt) <= 60 else one.prompt[:59] + "…"
        status = str(one.result.get("status") or "")
        if plan.delegation == "detached" and one.sub_id:
            parts.append(f"“{name}” goes on as sub-session {one.sub_id} ({status or 'running'}).")
            continue
        said = str(one.result.get("response") or "").replace(SUFFIX, "").strip()
        if not said:
            said = str(one.result.get("message") or ("" if one.result else one.text)).strip() or "no answer"
        mark = f" [{status}]" if status not in ("", "completed") else ""
        parts.append(f"“{name}”{mark}: {said[:_MAX_RESPONSE]}")
    if not parts:
        return "No sub-session was started."
    return parts[0] if len(parts) == 1 else "\n".join(f"{i}. {p}" for i, p in enumerate(parts, 1))
