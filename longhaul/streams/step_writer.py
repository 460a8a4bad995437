"""Turns a model's deltas into well-formed parts: what is opened is closed, and reasoning and text never interleave."""

from typing import Any, Protocol

from longhaul.streams.events import data_part, decoded, tool_output_part


class Sink(Protocol):
    """Where parts go."""

    def put(self, part: dict[str, Any]) -> None: ...


RETRIED_CALL = "The model call was retried."


def leftovers(parts: list[dict[str, Any]], round_: int, *, unanswered: str = RETRIED_CALL) -> list[dict[str, Any]]:
    """The parts that end what came before a step of `round_`: an open step, or what a try that died left behind.

    `parts` reach from the newest `start-step` to the end of the stream. Text of this very round was shown by a try
    that did not come to its end, so it is made void. Announced calls without an output get `unanswered` as theirs.
    """
    if not parts or parts[0]["type"] != "start-step":
        return []
    opened = [part for part in parts if part["type"] in ("text-start", "reasoning-start")]
    ended = {part["id"] for part in parts if part["type"] in ("text-end", "reasoning-end")}
    voided_before = {i for part in parts if part["type"] == "data-voided" for i in part["data"]["ids"]}
    closing = [{"type": p["type"].replace("start", "end"), "id": p["id"]} for p in opened if p["id"] not in ended]
    answered = {part["toolCallId"] for part in parts if part["type"].startswith("tool-output-")}
    closing += [
        tool_output_part(part["toolCallId"], unanswered, is_error=True)
        for part in parts
        if part["type"] == "tool-input-start" and part["toolCallId"] not in answered
    ]
    void = [p["id"] for p in opened if p["id"] not in voided_before and p["id"].startswith(f"{round_}.")]
    if void:
        closing.append(voided_part(void, round_))
    if not any(part["type"] == "finish-step" for part in parts):
        closing.append({"type": "finish-step"})
    return closing


def voided_part(ids: list[str], round_: int) -> dict[str, Any]:
    """Tells clients which text and reasoning they must take back, because the call that gave it is made again."""
    return data_part("voided", {"ids": ids, "round": round_})


class StepWriter:
    """Writes the parts of one model call. Ids are `round.attempt.n`, so those of a retried call are new."""

    def __init__(self, sink: Sink, round_: int, attempt: int) -> None:
        self._sink = sink
        self._prefix = f"{round_}.{attempt}"
        self._round = round_
        self._open: tuple[str, str] | None = None
        self._ids: list[str] = []
        self._announced: set[str] = set()
        self._started = False

    def begin(self) -> None:
        self._started = True
        self._sink.put({"type": "start-step"})
        self._sink.put(data_part("progress", {"round": self._round, "status": "running"}, transient=True))

    def text(self, delta: str) -> None:
        self._delta("text", delta)

    def reasoning(self, delta: str) -> None:
        self._delta("reasoning", delta)

    def _delta(self, kind: str, delta: str) -> None:
        if self._open is None or self._open[0] != kind:
            self.close_block()
            part_id = f"{self._prefix}.{len(self._ids)}"
            self._ids.append(part_id)
            self._open = (kind, part_id)
            self._sink.put({"type": f"{kind}-start", "id": part_id})
        self._sink.put({"type": f"{kind}-delta", "id": self._open[1], "delta": delta})

    def close_block(self) -> None:
        if self._open is not None:
            self._sink.put({"type": f"{self._open[0]}-end", "id": self._open[1]})
            self._open = None

    def tool_start(self, call_id: str, name: str) -> None:
        if call_id not in self._announced:
            self.close_block()
            self._announced.add(call_id)
            self._sink.put({"type": "tool-input-start", "toolCallId": call_id, "toolName": name})

    def tool_delta(self, call_id: str, delta: str) -> None:
        if call_id in self._announced and delta:
            self.close_block()
            self._sink.put({"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": delta})

    def tool_available(self, call_id: str, name: str, arguments: str) -> None:
        self.tool_start(call_id, name)
        self.close_block()
        self._sink.put(
            {
                "type": "tool-input-available",
                "toolCallId": call_id,
                "toolName": name,
                "input": decoded(arguments) if arguments.strip() else {},
            }
        )

    def end(self, *, keep_open: bool) -> None:
        """End the step, or only its blocks when tool outputs are still to come into it."""
        self.close_block()
        if self._started and not keep_open:
            self._sink.put({"type": "finish-step"})
            self._started = False

    def abandon(self) -> None:
        """The call failed: end what is open and void what was shown of it.

        Tool calls that were announced are answered at once: the call that comes instead announces its own.
        """
        self.close_block()
        for call_id in sorted(self._announced):
            self._sink.put(tool_output_part(call_id, RETRIED_CALL, is_error=True))
        self._announced.clear()
        if self._started and self._ids:
            self._sink.put(voided_part(list(self._ids), self._round))
        self.end(keep_open=False)
