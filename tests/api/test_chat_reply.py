"""Answers in the body of a chat: which of them count for a call that waits."""

from typing import Any

import orjson
import pytest

from api.chat_body import Chat, ChatReply, parse_chat
from api.client_tools import RESULT_MAX
from api.problems import ProblemError
from longhaul.contracts import ParkKind
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import Answer
from tests.api.test_parked_body import row

APPROVAL, QUESTION = row(ParkKind.APPROVAL, "write_file"), row(ParkKind.QUESTION, "ask_user")
CLIENTS = row(ParkKind.CLIENT_TOOL, "weather")


def replied(*parts: dict[str, Any]) -> ChatReply:
    """The body of a chat whose last message is the assistant's, with these parts."""
    body = {"id": "s", "messages": [{"id": "turn:follow", "role": "assistant", "parts": [*parts]}]}
    reply = parse_chat(orjson.dumps(body))
    assert isinstance(reply, ChatReply)
    return reply


def output(call: str, value: object) -> dict[str, Any]:
    return {"type": "tool-weather", "toolCallId": call, "state": "output-available", "output": value}


def test_outputs() -> None:
    reply = replied({"type": "step-start"}, output("c", {"sky": "blue"}))
    assert (reply.turn_id, reply.follow_up, reply.steps) == ("turn", "follow", 1)
    assert reply.answer(CLIENTS) == Answer(ParkedStatus.ANSWERED, '{"sky":"blue"}')
    failed = {**output("c", None), "state": "output-error", "errorText": "no network"}
    assert replied(failed).answer(CLIENTS) == Answer(ParkedStatus.ANSWERED, "no network", is_error=True)
    assert replied(failed).answer(QUESTION) == Answer(ParkedStatus.DENIED, "no network")


@pytest.mark.parametrize("state", ["input-available", "input-streaming", "approval-requested", ["output-available"]])
def test_a_call_without_an_output(state: object) -> None:
    assert replied({**output("c", "sunny"), "state": state}).answer(CLIENTS) is None


def test_an_output_is_no_approval_and_for_its_own_call_only() -> None:
    reply = replied(output("c", "allowed"), output("another", "sunny"))
    assert reply.answer(APPROVAL) is None
    assert reply.answer(CLIENTS._replace(tool_call_id="a third")) is None
    assert replied(output("c", "x" * RESULT_MAX)).answer(CLIENTS) is not None
    with pytest.raises(ProblemError) as refused:
        replied(output("c", "x" * (RESULT_MAX + 1))).answer(CLIENTS)
    assert refused.value.status == 413


@pytest.mark.parametrize("parts", [None, "text", [None, 7, {"toolCallId": 7}]])
def test_a_message_before_a_person_s_may_have_any_shape(parts: object) -> None:
    """Older messages are not validated: clients keep what other backends sent them."""
    user = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    chat = parse_chat(orjson.dumps({"messages": [{"role": "assistant", "parts": parts}, user]}))
    assert isinstance(chat, Chat)
    assert chat.before is not None
    assert chat.before.calls == {}
