"""A turn's parts as chat clients take them that know nothing of us: the AI SDK's `useChat`, clients of OpenAI's API.

Such a client can only add to what it shows. So nothing is sent that may have to be taken back, except text, which is
sent as it is written. When a model call is made again, its new text repeats the old one in most cases: then only what
is new is sent. If it differs, version 7 of the AI SDK is told to take the step back (`reset-step`). Other clients get
an error: they load the conversation again, instead of showing a text twice. Holding all text back until its call has
ended would avoid that error, and no client would see an answer being written.

A turn is one message of the assistant; each follow-up that the turn takes begins another. Ids of text and reasoning
count from 0 in each message, so that the same message is built from the live stream and from rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from longhaul.contracts import ParkKind
from longhaul.streams.events import Part

WRITTEN_ANEW = (
    "The answer broke off and was written anew with other words. "
    "Nothing is lost: load the conversation again to see it."
)


#: Parts that belong to no step.
OF_MESSAGE = ("start", "message-metadata", "abort", "error", "finish")


class TakeBack(StrEnum):
    """How a client can be told that what it shows of a step is not valid any more."""

    RESET_STEP = "reset-step"
    """It takes the step back."""

    NOT_AT_ALL = "not at all"
    """It cannot; a text that differs from what it shows ends its stream with an error."""


def message_id(turn_id: str, follow_up: str | None) -> str:
    """The id of the assistant's message that begins with a turn, or with a follow-up that the turn has taken."""
    return turn_id if follow_up is None else f"{turn_id}:{follow_up}"


def of_message(message: str) -> tuple[str, str | None]:
    """The turn and the follow-up of an assistant's message."""
    turn_id, _, follow_up = message.partition(":")
    return turn_id, follow_up or None


@dataclass
class _Block:
    """A text or reasoning part as the client has it."""

    kind: str
    id: str
    text: str = ""
    ended: bool = False


class ChatParts:
    """Makes the parts for one chat client out of a turn's parts.

    `only`: show only the message that begins with this follow-up (None: with the turn itself). `all_messages` shows
    every message of the turn, one behind the other, each with its own `start`. `data-follow-up` tells every client that
    a follow-up was taken. `asks`: the client can be asked to allow a tool call by a part that version 5 does not know.

    Attributes:
        failed: the client shows a text that cannot be taken back; its stream has ended with an error.
        finished: the client has its last part.
        shown: the message that this client is shown has begun.
    """

    def __init__(
        self,
        turn_id: str,
        take_back: TakeBack,
        *,
        only: str | None = None,
        all_messages: bool = False,
        asks: bool = False,
        details: bool = False,
    ) -> None:
        self._turn_id = turn_id
        self._take_back = take_back
        self._only = only
        self._all_messages = all_messages
        self._asks = asks
        self._details = details
        self._calls: set[str] = set()
        self._open_calls: set[str] = set()  # they have no output yet
        self._waiting: dict[str, str] = {}  # approval ids of calls that wait for a person or a client
        self._client_calls: set[str] = set()  # those among them that a client runs
        self.failed = False
        self.finished = False
        self.shown = False
        self._begin_message(None)

    def _begin_message(self, follow_up: str | None) -> None:
        self._follow_up = follow_up
        self._started = False
        self._model = ""
        self._reasoned_ms: dict[str, int] = {}
        self._reasoned_is_sent = True
        self._numbers = 0
        self._begin_step()

    def _begin_step(self) -> None:
        self._in_step = False
        self._stay_in_step = False
        self._blocks: list[_Block] = []  # of this step, as the client has them
        self._begin_attempt()

    def _begin_attempt(self) -> None:
        """A model call begins, or begins again: its text is compared with what the client has of this step."""
        self._at = -1  # the block that the call writes
        self._written = 0  # characters of it
        self._announced = False  # a tool call
        self._end_metadata: Part | None = None
        self._end_is_due = False  # held back, because a call that is made again may go on with the block

    @property
    def _shows(self) -> bool:
        return self._all_messages or self._follow_up == self._only

    @property
    def waits_for(self) -> frozenset[str]:
        """The approvals without which nothing more can come in this message; none: something else is under way, or this
        client cannot answer."""
        answers = self._asks or not self._client_calls.isdisjoint(self._waiting)
        if not answers or not self._open_calls <= self._waiting.keys():
            return frozenset()
        return frozenset(self._waiting[call] for call in self._open_calls)

    def feed(self, parts: Iterable[Part]) -> list[Part]:
        """What the client gets for these parts of the turn."""
        sent: list[Part] = []
        for part in parts:
            if self.finished:
                break
            kind: str = part["type"]
            if kind == "data-follow-up":
                sent += (*self._close_open_block(), *self._durations()) if self._shows else ()
                self._begin_message(part["data"]["message_id"])
            self.shown = self.shown or self._shows
            if self._shows or kind == "data-follow-up":
                sent += self._of(kind, part)
            elif kind == "finish":
                sent.append(part)
            if self.failed:
                sent += ({"type": "error", "errorText": WRITTEN_ANEW}, {"type": "finish"})
            self.finished = self.failed or kind == "finish"
        return sent

    def _of(self, kind: str, part: Part) -> Iterable[Part]:
        if kind == "data-voided":
            yield from self._voided()
            return
        if self._end_is_due:
            yield from self._close_block()
        if kind == "start":
            yield from self._start()
        elif kind == "start-step":
            if not self._stay_in_step:
                self._begin_step()
            self._stay_in_step = False
        elif kind == "finish-step":
            yield from self._finish_step()
        elif kind in ("text-start", "reasoning-start"):
            yield from self._block_start(kind.removesuffix("-start"))
        elif kind in ("text-delta", "reasoning-delta"):
            yield from self._delta(kind, part["delta"])
        elif kind in ("text-end", "reasoning-end"):
            self._end_is_due, self._end_metadata = True, part.get("providerMetadata")
            self._note_duration()
        elif kind == "tool-input-available":
            self._call_is_over()
            self._calls.add(part["toolCallId"])
            self._open_calls.add(part["toolCallId"])
            self._announced = True
            yield from self._step()
            yield part
        elif kind.startswith("tool-output-"):
            # Only calls that are certain are announced. The others were taken back by a retry.
            if part["toolCallId"] in self._calls:
                self._open_calls.discard(part["toolCallId"])
                yield part
        elif kind in ("data-plan", "file"):
            yield part  # kept in the message; it stands beside the output of a call, in a step
        elif kind == "data-approval":
            yield from self._approval(part)
        elif kind.startswith("data-"):
            if kind == "data-usage":
                yield from self._answered_by(part["data"].get("model", ""))
                yield from self._durations()
            yield {**part, "transient": True}
        elif kind in ("abort", "error"):
            yield from self._outcome(part)
        elif kind == "finish":
            yield from self._close_open_block()
            yield part

    def _start(self) -> Iterable[Part]:
        if not self._started:
            self._started = True
            yield {"type": "start", "messageId": message_id(self._turn_id, self._follow_up)}
            if self._model:
                yield metadata_part({"model": self._model})

    def _note_duration(self) -> None:
        """Of reasoning. A call that is made again takes another time; that of the stored answer counts."""
        if self._end_metadata and 0 <= self._at < len(self._blocks):
            self._reasoned_ms[self._blocks[self._at].id] = self._end_metadata["longhaul"]["duration_ms"]
            self._reasoned_is_sent = False

    def _durations(self) -> Iterable[Part]:
        """Tell how long the model has reasoned, once the answer is certain."""
        if not self._reasoned_is_sent:
            self._reasoned_is_sent = True
            yield metadata_part({"reasoning_ms": dict(self._reasoned_ms)})

    def _answered_by(self, model: str) -> Iterable[Part]:
        """Keep the name of the model in the message: of several, the newest."""
        if model and model != self._model:
            self._model = model
            if self._started:
                yield metadata_part({"model": model})

    def _step(self) -> Iterable[Part]:
        """Begin message and step with their first content: an attempt that gave none leaves nothing behind."""
        yield from self._start()
        if not self._in_step:
            self._in_step = True
            yield {"type": "start-step"}

    def _finish_step(self) -> Iterable[Part]:
        if self._in_step and self._at < 0 and not self._announced:
            self._stay_in_step = True  # the attempt broke off before its first word
        if self._stay_in_step:
            return
        self._call_is_over()
        yield from self._durations()
        if self._in_step:
            yield {"type": "finish-step"}
        self._begin_step()

    def _block_start(self, kind: str) -> Iterable[Part]:
        self._at += 1
        self._written = 0
        if self._at < len(self._blocks):
            self.failed = self.failed or self._blocks[self._at].kind != kind
            return
        yield from self._step()
        block = _Block(kind, str(self._numbers))
        self._numbers += 1
        self._blocks.append(block)
        yield {"type": f"{kind}-start", "id": block.id}

    def _delta(self, kind: str, delta: str) -> Iterable[Part]:
        block = self._blocks[self._at]
        known = block.text[self._written : self._written + len(delta)]
        self._written += len(delta)
        fresh = delta[len(known) :]
        if not delta.startswith(known) or (fresh and block.ended):
            self.failed = True
        elif fresh:
            block.text += fresh
            yield {"type": kind, "id": block.id, "delta": fresh}

    def _close_block(self) -> Iterable[Part]:
        """End the block that the call writes, unless the client has had its end."""
        self._end_is_due = False
        if 0 <= self._at < len(self._blocks):
            block = self._blocks[self._at]
            self.failed = self.failed or self._written < len(block.text)
            if not block.ended:
                block.ended = True
                end = {"type": f"{block.kind}-end", "id": block.id}
                tells = self._details and self._end_metadata
                yield {**end, "providerMetadata": self._end_metadata} if tells else end

    def _close_open_block(self) -> Iterable[Part]:
        """Nothing more comes in this message: end the block that the client has open, whole or not."""
        if self._blocks:
            self._at, self._written = len(self._blocks) - 1, len(self._blocks[-1].text)
        yield from self._close_block()

    def _call_is_over(self) -> None:
        """If the client has more blocks than the call has written, they cannot be taken back."""
        self.failed = self.failed or self._at < len(self._blocks) - 1

    def _voided(self) -> Iterable[Part]:
        """The call is made again. The client stays in the step, and in a block that has not ended."""
        self._stay_in_step = True
        if self._take_back is TakeBack.RESET_STEP:
            if self._blocks:
                yield {"type": "reset-step"}
            self._numbers -= len(self._blocks)
            for block in self._blocks:
                self._reasoned_ms.pop(block.id, None)
            self._blocks = []
        self._begin_attempt()

    def _approval(self, part: Part) -> Iterable[Part]:
        yield {**part, "transient": True}
        asked = part["data"]
        call = asked["tool_call_id"]
        if asked["status"] != "waiting":
            self._waiting.pop(call, None)
        elif call in self._open_calls and asked["kind"] != "connect":  # that is not answered in the chat
            self._waiting[call] = asked["approval_id"]
            if asked["kind"] == ParkKind.CLIENT_TOOL:
                self._client_calls.add(call)
            if self._asks and asked["kind"] == "approval":
                yield {"type": "tool-approval-request", "approvalId": asked["approval_id"], "toolCallId": call}

    def _outcome(self, part: Part) -> Iterable[Part]:
        yield from self._start()
        yield from self._close_open_block()
        yield from self._durations()
        metadata = {"status": "cancelled"} if part["type"] == "abort" else failed_metadata(part["errorText"])
        yield metadata_part(metadata)
        yield part


def metadata_part(metadata: Mapping[str, object]) -> Part:
    """Clients add it to what they keep about the message."""
    return {"type": "message-metadata", "messageMetadata": metadata}


class Rest:
    """Leaves out what a client has of a message: so many steps, the last of them without outputs of its calls."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._at = 0

    def of(self, parts: Iterable[Part]) -> Iterable[Part]:
        """What the client lacks of these parts. An output that it has is harmless: it replaces itself."""
        for part in parts:
            kind: str = part["type"]
            self._at += kind == "start-step"
            of_last = self._at == self._steps and kind.startswith(("tool-output-", "finish-step"))
            if self._at > self._steps or of_last or kind in OF_MESSAGE:
                yield part


def failed_metadata(error: str) -> dict[str, str]:
    return {"status": "failed", "error": error}


def merged(parts: Iterable[Part]) -> list[Part]:
    """The same parts with deltas that follow each other joined: what was said before comes at once."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else {}
        if part["type"].endswith("-delta") and (last.get("type"), last.get("id")) == (part["type"], part["id"]):
            joined[-1] = {**last, "delta": last["delta"] + part["delta"]}
        else:
            joined.append(part)
    return joined
