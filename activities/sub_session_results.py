"""What a sub-session tool answers the model with."""

from typing import Any

from longhaul.contracts import ReportSubSession, SubSessionState
from longhaul.db import conversation, ledger
from longhaul.db.database import Connection

RECENT_MESSAGES = 5
RECENT_CHARS = 400
WORDS = {
    SubSessionState.RUNNING: "It still works; poll it with get_sub_session_result.",
    SubSessionState.COMPLETED: "It has finished.",
    SubSessionState.ERROR: "It failed.",
    SubSessionState.CANCELLED: "It was stopped.",
}


async def result_of(connection: Connection, report: ReportSubSession) -> dict[str, Any]:
    """The result of section 8 of the contracts; a sub-session that runs shows no answer, least of all an old one."""
    sub_id, ended = report.sub_session_id, report.status is not SubSessionState.RUNNING
    rows = await conversation.rows_of_turn(connection, report.sub_turn_id) if ended and report.sub_turn_id else []
    spoken = [row.content for row in rows if row.role == "assistant" and row.content and not row.is_error]
    failed = next((row.content for row in rows if row.kind == "error"), "")
    usage = (await ledger.usage_of_each(connection, [sub_id])).get(sub_id)
    result: dict[str, Any] = {
        "status": SubSessionState.QUEUED if report.queued and not ended else report.status,
        "sub_session_id": sub_id,
        "link": f"/v1/sessions/{sub_id}",
        "response": spoken[-1] if spoken else None,
        "tool_calls": sum(len(row.tool_calls or ()) for row in rows),
        "usage": usage.model_dump() if usage is not None else None,
        "elapsed_seconds": round(report.elapsed_seconds, 1),
        "progress": await _recent(connection, sub_id) if report.include_progress else None,
        "message": " ".join(filter(None, (_words(report), failed))),
    }
    return {**result, "queued": True} if report.queued else result


def _words(report: ReportSubSession) -> str:
    words = WORDS[report.status]
    if report.status is SubSessionState.RUNNING:
        if report.cancel:
            return "It has been told to stop and has not ended yet; poll it with get_sub_session_result."
        if report.queued:
            words = f"It is at work, and your prompt waits in it. {words}"
        return f"The person wrote something, so the wait was cut short. {words}" if report.interrupted else words
    if report.cancel and report.status is not SubSessionState.CANCELLED:
        return f"{words} There was nothing to stop."
    return words


async def _recent(connection: Connection, sub_id: str) -> dict[str, Any]:
    rows = (await conversation.for_model(connection, sub_id))[-RECENT_MESSAGES:]
    return {
        "messages": await conversation.length(connection, sub_id),
        "recent": [{"role": row.role, "content": row.content[:RECENT_CHARS]} for row in rows],
    }
