"""A conversation as the AI SDK's `UIMessage[]`: from rows, and equal to what a client has built from the streams."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from longhaul.db.messages import StoredMessage
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import ParkedRow
from longhaul.db.turns import TurnRecord
from longhaul.streams.chat_parts import ChatParts, TakeBack, of_message
from longhaul.streams.events import Part, data_part, file_part
from longhaul.streams.from_rows import RowParts
from longhaul.streams.viewer import ViewerState

UiMessage = dict[str, Any]


class UiMessageBuilder:
    """Builds messages out of a chat client's parts, as the AI SDK's `processUIMessageStream` does."""

    def __init__(self) -> None:
        self.messages: list[UiMessage] = []
        self._blocks: dict[str, dict[str, Any]] = {}

    def add(self, parts: Iterable[Part]) -> None:
        for part in parts:
            self._add(part["type"], part)

    def _add(self, kind: str, part: Part) -> None:
        if kind == "start":
            self.messages.append({"id": part["messageId"], "role": "assistant", "parts": []})
            return
        if not self.messages:
            return
        message = self.messages[-1]
        shown: list[dict[str, Any]] = message["parts"]
        if kind == "start-step":
            shown.append({"type": "step-start"})
        elif kind == "reset-step":
            while shown and shown[-1]["type"] != "step-start":
                shown.pop()
        elif kind in ("text-start", "reasoning-start"):
            block = {"type": kind.removesuffix("-start"), "text": "", "state": "streaming"}
            if kind == "reasoning-start":
                block["id"] = part["id"]
            self._blocks[part["id"]] = block
            shown.append(block)
        elif kind in ("text-delta", "reasoning-delta"):
            self._blocks[part["id"]]["text"] += part["delta"]
        elif kind in ("text-end", "reasoning-end"):
            ended = self._blocks.pop(part["id"])
            ended["state"] = "done"
            ended |= {name: part[name] for name in ("providerMetadata",) if name in part}
        elif kind == "tool-input-available":
            name, call = part["toolName"], part["toolCallId"]
            shown.append(
                {"type": f"tool-{name}", "toolCallId": call, "state": "input-available", "input": part["input"]}
            )
        elif kind.startswith("tool-output-"):
            tool = next(one for one in reversed(shown) if one.get("toolCallId") == part["toolCallId"])
            tool["state"] = kind.removeprefix("tool-")
            tool |= {name: part[name] for name in ("output", "errorText") if name in part}
        elif kind == "file":
            shown.append(dict(part))
        elif kind == "data-plan":
            known = next((one for one in shown if (one["type"], one.get("id")) == (kind, part["id"])), None)
            if known is None:
                shown.append({"type": kind, "id": part["id"], "data": part["data"]})
            else:
                known["data"] = part["data"]
        elif kind == "message-metadata":
            message["metadata"] = {**message.get("metadata", {}), **part["messageMetadata"]}


def ui_messages(
    rows: Sequence[StoredMessage], turns: Iterable[TurnRecord], *, details: bool = False
) -> list[UiMessage]:
    """The messages of these rows, in order; `turns` are those that the rows belong to. A failed turn that was retried
    shows what it did, and not its failure.

    With `details` the messages have what no stream tells: how long a part took (its metadata `longhaul.duration_ms`),
    a part `data-compaction` where the conversation was summarised, and `metadata.edited` of messages with versions.
    """
    known = list(turns)
    retried = {turn.retry_of for turn in known}
    ended = {turn.turn_id: turn for turn in known if turn.status.final and turn.turn_id not in retried}
    messages: list[UiMessage] = []
    for turn_id, of_turn in groupby(rows, key=lambda row: row.turn_id):
        if turn_id is None:
            messages += [_plain(row) for row in of_turn if row.role in ("user", "assistant")]
        else:
            messages += _of_turn(turn_id, list(of_turn), ended.get(turn_id), details=details)
    if details:
        edited = {ui_id(row) for row in rows if row.version_of is not None}
        messages = [{**one, "metadata": {"edited": True}} if one["id"] in edited else one for one in messages]
    return messages


def _of_turn(
    turn_id: str, rows: Sequence[StoredMessage], ended: TurnRecord | None, *, details: bool
) -> list[UiMessage]:
    """The first messages of people, the assistant's message, and each follow-up with the message that begins there."""
    messages = [_plain(row) for row in rows if _begins_turn(row)]
    chat = ChatParts(turn_id, TakeBack.NOT_AT_ALL, all_messages=True, details=details)
    state = ViewerState()
    parts = RowParts(state, turn_id)
    builder = UiMessageBuilder()

    def show(made: Iterable[Part]) -> None:
        for part in made:
            state.note(part)
            builder.add(chat.feed([part]))

    waiting_for_answer = ended is None and all(row.role == "user" for row in rows)
    if not waiting_for_answer:
        show(parts.opening())
    filed = []
    for row in rows:
        if row.role != "user":
            show(parts.row(row))
            if details and builder.messages:
                _add_details(builder.messages[-1]["parts"], row)
        elif row.kind == "follow_up":
            messages += builder.messages
            messages.append(_plain(row))
            builder.messages = []
            show([data_part("follow-up", {"message_id": row.client_message_id, "round": row.round})])
        elif not _begins_turn(row):
            filed.append(_plain(row))
    if ended is not None:
        show(parts.closing(ended.status, ended.error))
    return [*messages, *builder.messages, *filed]


def _add_details(shown: list[dict[str, Any]], row: StoredMessage) -> None:
    """Add to an assistant's message, which ends with what `row` holds, what only the row tells."""
    took = {"longhaul": {"duration_ms": row.duration_ms}}
    if row.kind == "summary":
        shown.append({"type": "data-compaction", "data": {"message_id": row.id, "round": row.round}})
    elif row.duration_ms is None:
        return
    elif row.role == "tool":
        for part in shown:
            if part.get("toolCallId") == row.tool_call_id:
                part["callProviderMetadata"] = took


def _begins_turn(row: StoredMessage) -> bool:
    """Whether a turn began with this message. Messages that waited when it was stopped are filed at its end."""
    return row.role == "user" and row.kind != "follow_up" and row.round == 0


def _plain(row: StoredMessage) -> UiMessage:
    files = (row.context or {}).get("files") or () if row.role == "user" else ()
    return {
        "id": ui_id(row),
        "role": row.role,
        "parts": [{"type": "text", "text": row.content}, *map(file_part, files)],
    }


def ui_id(row: StoredMessage) -> str:
    """The id of a person's message at clients: that of its first version."""
    return row.version_of or row.client_message_id or row.id


def with_approvals(messages: list[UiMessage], approvals: Sequence[ParkedRow]) -> list[UiMessage]:
    """The messages with what a person was asked about tool calls, as versions 6 and 7 of the AI SDK keep it."""
    asked = {(row.turn_id, row.tool_call_id): row for row in approvals}
    for message in messages if asked else ():
        turn_id, _ = of_message(message["id"])
        for part in message["parts"]:
            if (row := asked.get((turn_id, part.get("toolCallId", "")))) is None:
                continue
            part["approval"] = {"id": row.id}
            if row.status in (ParkedStatus.ALLOWED, ParkedStatus.DENIED):
                part["approval"]["approved"] = row.status is ParkedStatus.ALLOWED
                part["approval"] |= {"reason": row.answer} if row.answer else {}
            if part["state"] == "input-available":
                part["state"] = "approval-requested" if row.status is ParkedStatus.WAITING else "approval-responded"
    return messages
