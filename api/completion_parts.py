"""What a completion is shown of a turn: up to the end, or to the calls that its caller runs itself.

The same request is shown the same at any later time, as a client needs that lost its connection: where it ends follows
from the order of the turn's parts, and not from how the calls stand by now.
"""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import orjson

from longhaul.contracts import ParkKind, Usage
from longhaul.streams.chat_parts import OF_MESSAGE
from longhaul.streams.events import Part


class CallerCall(NamedTuple):
    """A call of a caller's tool. Its `id` is that under which it waits, because ids of models are not unique."""

    id: str
    name: str
    arguments: str

    def as_openai(self) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class CompletionParts:
    """Picks a completion's parts out of a chat's parts.

    `answered`: ids of the model's calls whose results this request has brought; what is shown begins behind their step.

    Attributes:
        calls: the caller's calls with which this completion ends; empty: it ends with the turn, or goes on.
        usage: of the model calls that were shown.
    """

    def __init__(self, answered: Collection[str] = ()) -> None:
        self.calls: list[CallerCall] = []
        self.usage = Usage()
        self._answered = frozenset(answered)
        self._skips = bool(answered)
        self._begin_step()

    def _begin_step(self) -> None:
        self._inputs: dict[str, Part] = {}  # the calls of this step
        self._open: set[str] = set()  # they have no output yet
        self._waiting: set[str] = set()  # for a person or a client
        self._callers: dict[str, str] = {}  # approval ids of the caller's calls that this request does not answer

    @property
    def _concerned(self) -> bool:
        """Whether this step is shown, or holds the calls that this request answers."""
        return not self._skips or not self._answered.isdisjoint(self._inputs)

    def of(self, parts: Iterable[Part]) -> Iterable[Part]:
        """Those of the parts that are shown; none behind the caller's `calls`."""
        for part in parts:
            if self.calls:
                return
            kind: str = part["type"]
            if not self._skips or kind in OF_MESSAGE:
                yield part
            if kind == "data-usage" and not self._skips:
                self.usage += Usage.model_validate({"calls": 1, **part["data"]})
            self._note(kind, part)

    def _note(self, kind: str, part: Part) -> None:
        call: str = part.get("toolCallId", "")
        if kind == "start-step":
            self._begin_step()
        elif kind == "tool-input-available":
            self._inputs[call] = part
            self._open.add(call)
        elif kind.startswith("tool-output-"):
            self._open.discard(call)
            self._end_if_all_wait()
        elif kind == "data-approval":
            self._note_approval(part["data"])
            self._end_if_all_wait()
        elif kind == "finish-step" and self._concerned:
            # Rows show a call that was answered long ago, and not that it once waited.
            self._end(self._callers)
            self._skips = False

    def _note_approval(self, asked: dict[str, Any]) -> None:
        call = asked["tool_call_id"]
        if asked["status"] == "waiting":
            self._waiting.add(call)
        else:
            self._waiting.discard(call)
        if asked["kind"] == ParkKind.CLIENT_TOOL and call in self._inputs and call not in self._answered:
            self._callers[call] = asked["approval_id"]

    def _end_if_all_wait(self) -> None:
        if self._open <= self._waiting and self._concerned:
            self._end(self._waiting)

    def _end(self, among: Collection[str]) -> None:
        self.calls = [
            CallerCall(self._callers[call], part["toolName"], orjson.dumps(part["input"]).decode())
            for call, part in self._inputs.items()  # in the model's order; approvals come in any
            if call in self._callers and call in among
        ]
