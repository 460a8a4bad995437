"""Names and ids of a turn's stream.

A turn's stream is a Redis Stream whose entries hold one part each, of the AI SDK's UI message stream v1, as JSON in the
field `e`. The ids of the first and last entries are fixed, so Redis itself refuses them a second time and nothing can
follow the last one: `start` is 1-0, `abort` or `error` the last but one millisecond of time, `finish` the last.
"""

from typing import Any

import orjson

FIELD = b"e"
START_ID = "1-0"
OUTCOME_ID = "18446744073709551614-0"
FINISH_ID = "18446744073709551615-18446744073709551615"
UNSEALED_TTL_S = 86_400


def stream_key(turn_id: str) -> str:
    return f"longhaul:turn:{turn_id}"


def fence_key(turn_id: str) -> str:
    """A hash of the newest tries of activities that were tried again."""
    return f"longhaul:tries:{turn_id}"


def encode(part: dict[str, Any]) -> bytes:
    return orjson.dumps(part)


def start_part(turn_id: str) -> dict[str, Any]:
    """The first part; the answer of a turn is one UI message, so the turn's id is its id."""
    return {"type": "start", "messageId": turn_id}


def data_part(name: str, data: dict[str, Any], *, transient: bool = False) -> dict[str, Any]:
    """A part of our own; a transient one is news, not part of the message that clients keep."""
    part = {"type": f"data-{name}", "data": data}
    return {**part, "transient": True} if transient else part


def tool_output_part(call_id: str, output: str, *, is_error: bool) -> dict[str, Any]:
    """What a tool gave, unaltered: as JSON where it is JSON, else as text."""
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
