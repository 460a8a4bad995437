"""The body that the AI SDK's chat transports post, unmodified."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import Field

from api.attachments import FileReference, references
from api.client_tools import DeclaredTools, checked_tools, result_text
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
from longhaul.contracts import ParkKind
from longhaul.db.busy import OnBusy
from longhaul.db.messages import row_id
from longhaul.db.models import ParkedStatus
from longhaul.db.parked import Answer, ParkedRow
from longhaul.llm.models import Effort
from longhaul.settings.models import Tier
from longhaul.streams.chat_parts import of_message
from longhaul.tools.client_tools import ClientTool
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
    client_tools: DeclaredTools | None = None


@dataclass(frozen=True)
class Chat:
    """A valid body.

    Attributes:
        session_id: None if it names no session; `known_turns` may then say which it is.
        client_tools: those that the client runs itself; None: it says nothing of tools.
        before: the assistant's newest message, with answers that the client has not sent yet; None: there is none.
    """

    session_id: str | None
    message: IncomingMessage
    files: tuple[FileReference, ...]
    client_tools: tuple[ClientTool, ...] | None
    regenerate: bool
    known_turns: list[str]
    before: "ChatReply | None"


@dataclass(frozen=True)
class ChatReply:
    """An assistant's message that comes back with answers to its tool calls.

    Attributes:
        turn_id, follow_up: which message it is.
        steps: how many steps of it the client has.
        approvals: by approval id.
        calls: its tool calls by call id, as the client has them: with their outputs, those among them that it was sent.
    """

    session_id: str | None
    turn_id: str
    follow_up: str | None
    steps: int
    approvals: dict[str, Answer]
    calls: dict[str, dict[str, Any]]

    def answer(self, row: ParkedRow) -> Answer | None:
        """The answer to a call that waits; None: the message has none.

        Raises:
            ProblemError: 413, a result is too large.
        """
        if row.kind is ParkKind.APPROVAL:
            return self.approvals.get(row.id)
        if row.kind is ParkKind.CONNECT:
            return None  # no client can give a credential by a tool's output
        part = self.calls.get(row.tool_call_id, {})
        if part.get("state") == "output-available":
            return Answer(ParkedStatus.ANSWERED, result_text(part.get("output")))
        if part.get("state") == "output-error":
            why = str(part.get("errorText") or "")[:REASON_MAX]
            if row.kind is ParkKind.CLIENT_TOOL:
                return Answer(ParkedStatus.ANSWERED, why, is_error=True)
            return Answer(ParkedStatus.DENIED, why)
        return None


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
        message = validated(UiMessage, last)
        return _reply(chat.id, message.id, message.parts)
    if not isinstance(last, dict) or last.get("role") != "user":
        raise _refused(at, "role", "the last message should be a user's, or an assistant's with answers to its calls")
    message = validated(UiMessage, last)
    files = references(message.parts)
    checked = validated(PostMessage, {"message": text_of(message, files)})
    context = chat.context.model_dump(exclude_none=True) if chat.context else None
    assistants = [one for one in reversed(chat.messages) if isinstance(one, dict) and one.get("role") == "assistant"]
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
        checked_tools(chat.client_tools) if chat.client_tools is not None else None,
        regenerate=chat.trigger == "regenerate-message",
        known_turns=[of_message(str(one.get("id", "")))[0] for one in assistants],
        before=_reply(chat.id, str(assistants[0].get("id", "")), assistants[0].get("parts")) if assistants else None,
    )


def _reply(session_id: str | None, message_id: str, sent: object) -> ChatReply:
    turn_id, follow_up = of_message(message_id)
    parts = [part for part in sent if isinstance(part, dict)] if isinstance(sent, list) else []
    approvals: dict[str, Answer] = {}
    for part in parts:
        approval = part.get("approval")
        if part.get("state") == "approval-responded" and isinstance(approval, dict):
            reason = str(approval.get("reason") or "")[:REASON_MAX] or None
            allowed = approval.get("approved") is True
            status = ParkedStatus.ALLOWED if allowed else ParkedStatus.DENIED
            approvals[str(approval.get("id"))] = Answer(status, None if allowed else reason)
    calls = {call: part for part in parts if isinstance(call := part.get("toolCallId"), str)}
    steps = sum(part.get("type") == "step-start" for part in parts)
    return ChatReply(session_id, turn_id, follow_up, steps, approvals, calls)


def _refused(at: int, name: str, why: str) -> Exception:
    return invalid([{"loc": ["body", "messages", at, name], "msg": why, "type": "not_taken"}])


def _message_id(sent: str) -> str:
    """The client's id as it is, so that the client finds its message again by it."""
    if not sent:
        return str(uuid4())
    return sent if MESSAGE_ID.fullmatch(sent) else row_id("ai-sdk", sent)
