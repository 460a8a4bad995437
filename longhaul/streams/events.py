"""The parts of a turn's stream, and the names and ids under which Redis keeps them.

A turn's stream is a Redis Stream. Each entry holds one part of the AI SDK's UI message stream v1, as JSON in the field
`e`. The ids of the first and the last entries are fixed: `start` is 1-0, `abort` or `error` has the last but one
millisecond of time, and `finish` has the last id that Redis knows. So nothing can be written behind `finish`.
"""

from typing import Any

import orjson

from longhaul.contracts import ConnectRequest
from longhaul.db.parked import ParkedRow

Part = dict[str, Any]

FIELD = b"e"
START_ID = "1-0"
OUTCOME_ID = "18446744073709551614-0"
FINISH_ID = "18446744073709551615-18446744073709551615"
UNSEALED_TTL_S = 86_400


def stream_key(turn_id: str) -> str:
    """The stream. Both keys of a turn have the hash tag `{turn_id}`, so they share a slot of Redis Cluster."""
    return f"longhaul:turn:{{{turn_id}}}:stream"


def writers_key(turn_id: str) -> str:
    """A hash about the writers of an open stream; it exists exactly as long as the stream may be written to."""
    return f"longhaul:turn:{{{turn_id}}}:writers"


def encode(part: Part) -> bytes:
    return orjson.dumps(part)


def start_part(turn_id: str) -> Part:
    """The first part; the answer of a turn is one UI message, so the turn's id is its id."""
    return {"type": "start", "messageId": turn_id}


def data_part(name: str, data: dict[str, Any], *, transient: bool = False) -> Part:
    """A part of our own. Clients do not keep a transient part in their message."""
    part = {"type": f"data-{name}", "data": data}
    return {**part, "transient": True} if transient else part


def approval_part(row: ParkedRow) -> Part:
    """A tool call waits for a person or a client (`status` is `waiting`), or does no longer."""
    data: dict[str, Any] = {
        "approval_id": row.id,
        "tool_call_id": row.tool_call_id,
        "tool_name": row.tool_name,
        "kind": row.kind,
        "status": row.status,
        "round": row.round,
    }
    if row.expires_at is not None:
        data["expires_at"] = row.expires_at.isoformat()
    if (connect := connect_request(row)) is not None:
        data["connect"] = connect.model_dump()
    return data_part("approval", data)


def connect_request(row: ParkedRow) -> ConnectRequest | None:
    """What a call asks to connect; None: it is of another kind."""
    if row.credential is None:
        return None
    url = connect_url(row.credential) if row.provider is not None else None
    return ConnectRequest(credential=row.credential, provider=row.provider, url=url)


def connect_url(credential: str) -> str:
    """Where a person connects to the provider of a credential."""
    return f"/v1/credentials/{credential}/connect"


def compaction_part(message_id: str, round_: int | None, covers: dict[str, Any] | None) -> Part:
    """The older part of the conversation has been summarised, in the row `message_id`; `covers`: for how many rows."""
    return data_part("compaction", {"message_id": message_id, "round": round_, **(covers or {})})


def usage_part(usage: dict[str, Any], model: str | None) -> Part:
    """What the model call of a round has used, and the model that answered."""
    return data_part("usage", {**usage, "model": model} if model else usage)


def file_url(file_id: str) -> str:
    """Where the API has the content of a file."""
    return f"/v1/files/{file_id}/content"


def file_part(file: dict[str, Any]) -> Part:
    """A file as a part of a message; `file` as the context of a row has it."""
    return {
        "type": "file",
        "mediaType": file["media_type"],
        "filename": file["name"],
        "url": file_url(file["id"]),
    }


def shared_file_part(output: str) -> Part | None:
    """A file that the copilot shows, from an output of its tool for that; None if it has none.

    It has no name: the AI SDK's part of a stream has none. The output of the call has it.
    """
    shared = decoded(output)
    if not isinstance(shared, dict) or not isinstance(shared.get("file_id"), str):
        return None
    return {"type": "file", "mediaType": str(shared.get("media_type")), "url": file_url(shared["file_id"])}


def plan_part(output: str) -> Part | None:
    """The copilot's plan, from an output of its tool for that; None if it has none. A newer one replaces it."""
    plan = decoded(output)
    if not isinstance(plan, dict) or not isinstance(plan.get("plan"), list):
        return None
    return {"id": "plan", **data_part("plan", {"plan": plan["plan"]})}


def tool_output_part(call_id: str, output: str, *, is_error: bool) -> Part:
    """A tool's output, unaltered: as JSON if it is a JSON object or list, else as text."""
    if is_error:
        return {"type": "tool-output-error", "toolCallId": call_id, "errorText": output}
    return {"type": "tool-output-available", "toolCallId": call_id, "output": decoded(output)}


def decoded(text: str) -> Any:
    """JSON objects and lists as such, everything else as the text that it is."""
    if text[:1] in ("{", "["):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text


# The only entry of a withdrawn stream, under FINISH_ID. Readers that meet it go over to the stored rows.
WITHDRAWN = encode({"type": "withdrawn"})
