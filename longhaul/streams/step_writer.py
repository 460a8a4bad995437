"""Turns a model's deltas into well-formed parts: what is opened is closed, and reasoning and text never interleave."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from longhaul.streams.blocks import Block, end_part, pieces_of
from longhaul.streams.events import Part, data_part, decoded, tool_output_part
from longhaul.streams.viewer import BLOCK_STARTS, ViewerState

RETRIED_CALL = "The model call was retried."
INCOMPLETE_CALL = "The model was stopped before it had written this call."


def closing_parts(open_step: list[Part], round_: int, *, unanswered: str = RETRIED_CALL) -> list[Part]:
    """The parts that close the newest step, before a step of `round_` begins.

    `open_step` reaches from the newest `start-step` to the end of the stream. Text of this very round was shown by an
    attempt that did not reach its end, so it is voided. Announced calls without an output get `unanswered` as theirs.
    """
    if not open_step or open_step[0]["type"] != "start-step":
        return []
    state = _state_after(open_step)
    closing: list[Part] = [{"type": f"{kind}-end", "id": part_id} for part_id, kind in state.open_blocks.items()]
    closing += [
        tool_output_part(call[1], unanswered, is_error=True) for call in state.announced if call not in state.outputs
    ]
    if state.round == round_ and state.has_content and not state.step_voided:
        ids = [part["id"] for part in open_step if part["type"] in BLOCK_STARTS]
        closing.append(voided_part(ids, round_))
    if state.step_open:
        closing.append({"type": "finish-step"})
    return closing


def shows_answer(open_step: list[Part], round_: int, call_ids: Collection[str]) -> bool:
    """Whether the newest step shows the whole answer of `round_`, which calls these tools."""
    state = _state_after(open_step)
    if state.round != round_ or state.open_blocks:
        return False
    if state.step_open:
        return bool(call_ids) and all((round_, call_id) in state.inputs for call_id in call_ids)
    return round_ in state.rounds_done


class CutOff(NamedTuple):
    """All that an attempt at a model call had shown when its worker died; `attempt`: None if it had shown no text."""

    attempt: int | None
    text: str


def cut_off_attempt(open_step: list[Part], round_: int) -> CutOff | None:
    """The attempt at `round_` that has left the newest step open."""
    state = _state_after(open_step)
    if not state.step_open or state.round != round_:
        return None
    ids = [part["id"] for part in open_step if part["type"] in BLOCK_STARTS]
    text = "".join(part.get("delta") or part.get("inputTextDelta") or "" for part in open_step)
    return CutOff(int(ids[-1].split(".")[1]) if ids else None, text)


def _state_after(parts: list[Part]) -> ViewerState:
    state = ViewerState()
    for part in parts:
        state.note(part)
    return state


def voided_part(ids: list[str], round_: int) -> Part:
    """Tells clients which text and reasoning they must take back, because the model call is made again."""
    return data_part("voided", {"ids": ids, "round": round_})


class StepWriter:
    """Writes the parts of one model call. Ids are `round.attempt.n`, so those of a retried call are new."""

    def __init__(self, put: Callable[[Part], None], round_: int, attempt: int) -> None:
        self._put = put
        self._prefix = f"{round_}.{attempt}"
        self._round = round_
        self._open: tuple[str, str] | None = None
        self._ids: list[str] = []
        self._announced: set[str] = set()
        self._started = False

    def begin(self) -> None:
        self._started = True
        self._put({"type": "start-step"})
        self._put(data_part("progress", {"round": self._round, "status": "running"}, transient=True))

    def show(self, pieces: Iterable[tuple[str, str, str]]) -> None:
        """Write the pieces of a chunk, as `Assembler` returns them."""
        for kind, piece, more in pieces:
            match kind:
                case "text" | "reasoning" if piece:
                    self._delta(kind, piece)
                case "reasoned":
                    self.close_block(int(more))
                case "tool":
                    self.tool_start(piece, more)
                case "arguments":
                    self.tool_delta(piece, more)

    def show_stored(self, blocks: Iterable[Block], calls: Collection[dict[str, Any]]) -> None:
        """Write a stored answer as a step of its own."""
        self.begin()
        self.show(pieces_of(blocks))
        self.complete(calls)

    def complete(self, calls: Collection[dict[str, Any]]) -> None:
        """Announce the answer's tool calls (in the OpenAI shape). The step stays open for their outputs, if any."""
        for call in calls:
            self.tool_available(call["id"], call["function"]["name"], call["function"]["arguments"])
        self.end(keep_open=bool(calls))

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
            self._put({"type": f"{kind}-start", "id": part_id})
        self._put({"type": f"{kind}-delta", "id": self._open[1], "delta": delta})

    def close_block(self, duration_ms: int | None = None) -> None:
        """End what is open; `duration_ms`: how long the model has reasoned in it."""
        if self._open is not None:
            self._put(end_part(*self._open, duration_ms))
            self._open = None

    def tool_start(self, call_id: str, name: str) -> None:
        if call_id not in self._announced:
            self.close_block()
            self._announced.add(call_id)
            self._put({"type": "tool-input-start", "toolCallId": call_id, "toolName": name})

    def tool_delta(self, call_id: str, delta: str) -> None:
        if call_id in self._announced and delta:
            self.close_block()
            self._put({"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": delta})

    def tool_available(self, call_id: str, name: str, arguments: str) -> None:
        self.tool_start(call_id, name)
        self.close_block()
        self._put(
            {
                "type": "tool-input-available",
                "toolCallId": call_id,
                "toolName": name,
                "input": decoded(arguments) if arguments.strip() else {},
            }
        )

    def end(self, *, keep_open: bool) -> None:
        """End the step, or only its blocks when tool outputs will follow in it.

        Calls that are announced in a step that ends here will not run, so they get their output now.
        """
        self.close_block()
        if self._started and not keep_open:
            self._answer_calls(INCOMPLETE_CALL)
            self._put({"type": "finish-step"})
            self._started = False

    def take_back(self) -> None:
        """The call failed: end what is open and void the step, also if it only announced tool calls.

        Announced tool calls get their output at once, because the next attempt announces its own.
        """
        self.close_block()
        has_content = bool(self._ids or self._announced)
        self._answer_calls(RETRIED_CALL)
        if self._started and has_content:
            self._put(voided_part(list(self._ids), self._round))
        self.end(keep_open=False)

    def _answer_calls(self, output: str) -> None:
        for call_id in sorted(self._announced):
            self._put(tool_output_part(call_id, output, is_error=True))
        self._announced.clear()
