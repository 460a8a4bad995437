"""The body that the AI SDK's chat transports post, unmodified."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import uuid4

import orjson
from pydantic import Field

from api.attachments import FileReference, references
from api.parked_body import REASON_MAX
from api.problems import invalid
from api.request_body import (
    ON_BUSY,
    ModelName,
    PageContext,
    PostMessage,
    UiMessage,
    UiMessages,
    json_object,
    text_of,
    validated,
)
from longhaul.db.busy import OnBusy
from longhaul.db.messages import row_id
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import Answer
from longhaul.llm.models import Effort
from longhaul.settings.models import Tier
from longhaul.streams.chat_parts import of_message
from longhaul.turns.deliver import IncomingMessage, Mode

SESSION_ID = r"^[A-Za-z0-9_-]{1,64}$"
MESSAGE_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
ClientSessionId = Annotated[str, Field(pattern=SESSION_ID)]


class ChatMessages(UiMessages):
    """The conversation as the client has it. Its last message is the one that is sent, edited or answered again."""

    id: ClientSessionId | None = Field(None, description="The session. It is made with its first use.")
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    context: PageContext | None = None
    mode: Mode | None = None
    tier: Tier | None = None
    model: ModelName | None = None
    effort: Effort | None = None
    on_busy: OnBusy = Field(OnBusy.JOIN, description=ON_BUSY)


@dataclass(frozen=True)
class Chat:
    """A valid body. `session_id` is None if it names no session; `known_turns` may then say which it is."""

    session_id: str | None
    message: IncomingMessage
    files: tuple[FileReference, ...]
    regenerate: bool
    known_turns: list[str]


@dataclass(frozen=True)
class ChatReply:
    """An assistant's message that comes back with answers to its tool calls.

    Attributes:
        turn_id, follow_up: which message it is.
        steps: how many steps of it the client has.
        approvals: by approval id.
        outputs: results of tool calls by call id, among them those that the client was sent.
    """

    session_id: str | None
    turn_id: str
    follow_up: str | None
    steps: int
    approvals: dict[str, Answer]
    outputs: dict[str, Answer]


def parse_chat(body: bytes) -> Chat | ChatReply:
    """The message in a body of the AI SDK, or the answers in the assistant's last message.

    Raises:
        ProblemError: 422, with where and why.
    """
    fields = json_object(body)
    chat = validated(ChatMessages, {name: value for name, value in fields.items() if value is not None})
    at = len(chat.messages) - 1
    last = chat.messages[at]
    if isinstance(last, dict) and last.get("role") == "assistant" and chat.trigger == "submit-message":
        return _reply(chat.id, validated(UiMessage, last))
    if not isinstance(last, dict) or last.get("role") != "user":
        raise _refused(at, "role", "the last message should be a user's, or an assistant's with answers to its calls")
    message = validated(UiMessage, last)
    files = references(message.parts)
    checked = validated(PostMessage, {"message": text_of(message, files)})
    context = chat.context.model_dump(exclude_none=True) if chat.context else None
    assistants = (one for one in reversed(chat.messages) if isinstance(one, dict) and one.get("role") == "assistant")
    return Chat(
        chat.id,
        IncomingMessage(
            _message_id(message.id),
            checked.message,
            context or None,
            mode=chat.mode,
            tier=chat.tier,
            model=chat.model,
            effort=chat.effort,
            on_busy=chat.on_busy,
        ),
        files,
        regenerate=chat.trigger == "regenerate-message",
        known_turns=[of_message(str(one.get("id", "")))[0] for one in assistants],
    )


def _reply(session_id: str | None, message: UiMessage) -> ChatReply:
    turn_id, follow_up = of_message(message.id)
    approvals: dict[str, Answer] = {}
    outputs: dict[str, Answer] = {}
    for part in message.parts:
        approval, call = part.get("approval"), part.get("toolCallId")
        match part.get("state"):
            case "approval-responded" if isinstance(approval, dict):
                reason = str(approval.get("reason") or "")[:REASON_MAX] or None
                allowed = approval.get("approved") is True
                status = ParkedStatus.ALLOWED if allowed else ParkedStatus.DENIED
                approvals[str(approval.get("id"))] = Answer(status, None if allowed else reason)
            case "output-available":
                outputs[str(call)] = Answer(ParkedStatus.ANSWERED, _text_of_output(part.get("output")))
            case "output-error":
                outputs[str(call)] = Answer(ParkedStatus.DENIED, str(part.get("errorText") or "")[:REASON_MAX])
    steps = sum(part.get("type") == "step-start" for part in message.parts)
    return ChatReply(session_id, turn_id, follow_up, steps, approvals, outputs)


def _text_of_output(output: object) -> str:
    return output if isinstance(output, str) else orjson.dumps(output).decode()


def _refused(at: int, name: str, why: str) -> Exception:
    return invalid([{"loc": ["body", "messages", at, name], "msg": why, "type": "not_taken"}])


def _message_id(sent: str) -> str:
    """The client's id as it is, so that the client finds its message again by it."""
    if not sent:
        return str(uuid4())
    return sent if MESSAGE_ID.fullmatch(sent) else row_id("ai-sdk", sent)
