"""What a chat client is asked, when nothing more can come without its answer, and what it lacks afterwards."""

from collections.abc import Iterable

import pytest

from longhaul.streams.chat_parts import ChatParts, Rest, TakeBack
from longhaul.streams.events import Part, data_part

START: list[Part] = [{"type": "start", "messageId": "t"}, {"type": "start-step"}]


def call(name: str) -> Part:
    return {"type": "tool-input-available", "toolCallId": name, "toolName": "pay", "input": {}}


def output(name: str) -> Part:
    return {"type": "tool-output-available", "toolCallId": name, "output": "paid"}


def asked(name: str, status: str = "waiting", kind: str = "approval") -> Part:
    return data_part("approval", {"approval_id": f"id {name}", "tool_call_id": name, "kind": kind, "status": status})


def types(parts: Iterable[Part]) -> list[str]:
    return [part["type"] for part in parts]


def test_it_waits_when_every_open_call_does() -> None:
    chat = ChatParts("t", TakeBack.NOT_AT_ALL, asks=True)
    chat.feed([*START, call("a"), call("b"), call("c")])
    assert not chat.waits_for
    assert "tool-approval-request" in types(chat.feed([asked("a"), asked("b", kind="question")]))
    assert not chat.waits_for, "c is under way"
    chat.feed([output("c")])
    assert chat.waits_for == {"id a", "id b"}
    chat.feed([asked("a", "allowed")])
    assert not chat.waits_for, "a is run now"
    chat.feed([output("a")])
    assert chat.waits_for == {"id b"}
    chat.feed([asked("b", "answered"), output("b"), {"type": "finish-step"}])
    assert not chat.waits_for


def test_a_question_is_no_request_for_approval() -> None:
    chat = ChatParts("t", TakeBack.NOT_AT_ALL, asks=True)
    chat.feed([*START, call("a")])
    assert types(chat.feed([asked("a", kind="question")])) == ["data-approval"]


@pytest.mark.parametrize("only", [None, "follow-up"])
def test_who_cannot_be_asked_or_sees_another_message_does_not_wait(only: str | None) -> None:
    chat = ChatParts("t", TakeBack.NOT_AT_ALL, only=only, asks=only is not None)
    chat.feed([*START, call("a")])
    assert "tool-approval-request" not in types(chat.feed([asked("a")]))
    assert not chat.waits_for


def test_every_client_runs_its_own_tools() -> None:
    """So each waits for them; beside them, a client that cannot be asked waits for an approval as well."""
    chat = ChatParts("t", TakeBack.NOT_AT_ALL)
    chat.feed([*START, call("a"), call("b"), asked("a", kind="client_tool")])
    assert not chat.waits_for
    chat.feed([asked("b")])
    assert chat.waits_for == {"id a", "id b"}
    chat.feed([asked("a", "answered", kind="client_tool"), output("a")])
    assert not chat.waits_for


def test_the_rest_of_a_message() -> None:
    first: list[Part] = [*START, {"type": "text-start", "id": "0"}, call("a"), output("a"), {"type": "finish-step"}]
    second: list[Part] = [{"type": "start-step"}, call("b"), asked("b"), {"type": "tool-approval-request"}]
    third: list[Part] = [
        output("b"),
        {"type": "finish-step"},
        {"type": "start-step"},
        {"type": "text-start", "id": "1"},
    ]
    rest = Rest(2)
    assert types(rest.of(first)) == ["start"]
    assert types(rest.of(second)) == []
    assert list(rest.of(third)) == third
