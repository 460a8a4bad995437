"""What one client has been sent of a turn: enough to end it properly when the rest comes from somewhere else."""

from typing import Any

import orjson

from longhaul.streams.events import encode

# Deltas change nothing that is kept here, and they are nearly all that is sent: they are passed by unparsed.
DELTA_PREFIXES = (b'{"type":"text-delta"', b'{"type":"reasoning-delta"', b'{"type":"tool-input-delta"')
BLOCK_STARTS = ("text-start", "reasoning-start")
BLOCK_ENDS = ("text-end", "reasoning-end")


class Seen:
    """Follows the parts that a client is sent. `unknown`: it has seen some that we cannot find out about any more."""

    def __init__(self) -> None:
        self.unknown = False
        self.started = False
        self.outcome = False
        self.finished = False
        self.step_open = False
        self.round: int | None = None
        self.rounds_done: set[int] = set()
        self.open_blocks: dict[str, str] = {}
        self.unfinished: list[str] = []
        self.announced: dict[tuple[int | None, str], None] = {}  # in their order
        self.inputs: set[tuple[int | None, str]] = set()
        self.outputs: set[tuple[int | None, str]] = set()
        self.follow_ups: set[str] = set()
        self._voided = False
        self._said = False

    def feed(self, part: bytes) -> None:
        """Take note of one part on its way to the client."""
        if not part.startswith(DELTA_PREFIXES):
            self._note(orjson.loads(part))

    def feed_own(self, part: dict[str, Any]) -> bytes:
        """Take note of a part that we made; as JSON."""
        self._note(part)
        return encode(part)

    def _note(self, part: dict[str, Any]) -> None:
        kind: str = part["type"]
        if kind in BLOCK_STARTS:
            self.open_blocks[part["id"]] = kind.removesuffix("-start")
            self.unfinished.append(part["id"])
            self._said = True
        elif kind in BLOCK_ENDS:
            self.open_blocks.pop(part["id"], None)
        elif kind.startswith("tool-"):
            self._note_tool(kind, (self.round, part["toolCallId"]))
            self._said = True
        elif kind == "data-voided":
            self._note_voided(part["data"])
        elif kind == "data-follow-up":
            self.follow_ups.add(part["data"]["message_id"])
        elif kind == "data-progress" and self.step_open:
            self.round = part["data"].get("round", self.round)
        else:
            self._note_frame(kind)

    def _note_tool(self, kind: str, call: tuple[int | None, str]) -> None:
        if kind.startswith("tool-input-"):
            self.announced[call] = None
        if kind == "tool-input-start":
            # A retried model call announces its calls again, perhaps with the ids of those it replaces.
            self.inputs.discard(call)
            self.outputs.discard(call)
        elif kind == "tool-input-available":
            self.inputs.add(call)
        elif kind.startswith("tool-output-"):
            self.outputs.add(call)

    def _note_voided(self, data: dict[str, Any]) -> None:
        ids = set(data["ids"])
        self.unfinished = [part_id for part_id in self.unfinished if part_id not in ids]
        self.rounds_done.discard(data.get("round", -1))
        self._voided = self.step_open

    def _note_frame(self, kind: str) -> None:
        if kind == "start":
            self.started = True
        elif kind == "start-step":
            self.step_open, self._voided, self._said, self.round = True, False, False, None
            self.unfinished = []
        elif kind == "finish-step":
            self.step_open = False
            # A try that failed before its first word leaves an empty step: the round is still to come.
            if self.round is not None and self._said and not self._voided:
                self.rounds_done.add(self.round)
                self.unfinished = []
        elif kind in ("abort", "error"):
            self.outcome = True
        elif kind == "finish":
            self.finished = True
