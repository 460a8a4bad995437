"""What one client has been sent of a turn: enough to continue properly when the rest is read from somewhere else."""

from typing import Any

import orjson

from longhaul.streams.events import Part, encode

# Deltas change nothing that is kept here, and they are nearly all that is sent: they are passed by unparsed.
DELTA_PREFIXES = (b'{"type":"text-delta"', b'{"type":"reasoning-delta"', b'{"type":"tool-input-delta"')
BLOCK_STARTS = ("text-start", "reasoning-start")
BLOCK_ENDS = ("text-end", "reasoning-end")


class ViewerState:
    """Follows the parts that a client is sent."""

    def __init__(self) -> None:
        self.started = False
        self.outcome = False
        self.finished = False
        self.step_open = False
        self.round: int | None = None
        self.rounds_done: set[int] = set()
        self.open_blocks: dict[str, str] = {}
        self.unfinished: list[str] = []
        self.announced: dict[tuple[int | None, str], None] = {}  # in order
        self.inputs: set[tuple[int | None, str]] = set()
        self.outputs: set[tuple[int | None, str]] = set()
        self.follow_ups: set[str] = set()
        self.compactions: set[str] = set()
        self.approvals: set[tuple[str, str]] = set()
        self.step_voided = False  # the newest step
        self.has_content = False  # the newest step

    @property
    def answered_round(self) -> int:
        """The newest round whose model answer the client has as a whole; its tools may still run."""
        done = max(self.rounds_done, default=0)
        if not self.step_open or not self.round:
            return done
        # Calls of an attempt that was taken back have an output, but no input.
        unanswered = [call for call in self.announced if call[0] == self.round and call not in self.outputs]
        whole = self.has_content and not self.open_blocks and all(call in self.inputs for call in unanswered)
        return self.round if whole and not self.step_voided else done

    def note_json(self, part: bytes) -> None:
        """Note one part on its way to the client."""
        if not part.startswith(DELTA_PREFIXES):
            self.note(orjson.loads(part))

    def note_and_encode(self, part: Part) -> bytes:
        """Note one part that was made here; its JSON."""
        self.note(part)
        return encode(part)

    def note(self, part: Part) -> None:
        """Note one part."""
        kind: str = part["type"]
        if kind in BLOCK_STARTS:
            self.open_blocks[part["id"]] = kind.removesuffix("-start")
            self.unfinished.append(part["id"])
            self.has_content = True
        elif kind in BLOCK_ENDS:
            self.open_blocks.pop(part["id"], None)
        elif kind.startswith("tool-"):
            self._note_tool(kind, (self.round, part["toolCallId"]))
            self.has_content = True
        elif kind == "data-voided":
            self._note_voided(part["data"])
        elif kind == "data-follow-up":
            self.follow_ups.add(part["data"]["message_id"])
        elif kind == "data-compaction":
            self.compactions.add(part["data"]["message_id"])
        elif kind == "data-approval":
            self.approvals.add((part["data"]["approval_id"], part["data"]["status"]))
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
            self.outputs.discard(call)  # from rows, a call is announced again without a start
        elif kind.startswith("tool-output-"):
            self.outputs.add(call)

    def _note_voided(self, data: dict[str, Any]) -> None:
        ids = set(data["ids"])
        self.unfinished = [part_id for part_id in self.unfinished if part_id not in ids]
        self.rounds_done.discard(data.get("round", -1))
        self.step_voided = self.step_open

    def _note_frame(self, kind: str) -> None:
        if kind == "start":
            self.started = True
        elif kind == "start-step":
            self.step_open, self.step_voided, self.has_content, self.round = True, False, False, None
            self.unfinished = []
        elif kind == "finish-step":
            self.step_open = False
            # An attempt that failed before its first word leaves an empty step: the round is not shown yet.
            if self.round is not None and self.has_content and not self.step_voided:
                self.rounds_done.add(self.round)
                self.unfinished = []
        elif kind in ("abort", "error"):
            self.outcome = True
        elif kind == "finish":
            self.finished = True
