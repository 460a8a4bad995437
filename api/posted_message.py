"""A message as it is posted: in our own form, or in the one that the AI SDK sends."""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID, uuid4

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from api.problems import ProblemError, invalid
from longhaul.db.messages import row_id
from longhaul.turns.deliver import IncomingMessage, Mode, Tier

MESSAGE_MAX = 32_000
BODY_MAX = 32 * 1024 * 1024


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("should not be empty or blank")
    return text


Text = Annotated[str, Field(min_length=1, max_length=MESSAGE_MAX), AfterValidator(_not_blank)]


class PageContext(BaseModel):
    """Where the person is looking at."""

    url: str | None = Field(None, max_length=2000, examples=["https://example.com/orders/17"])
    content: str | None = Field(None, max_length=MESSAGE_MAX)


class PostMessage(BaseModel):
    """A message to a session."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"message": "What is 17 * 23?"}]})

    message: Text
    message_id: UUID | None = Field(None, description="Yours, so that a repeated POST is one message.")
    context: PageContext | None = None
    file_ids: list[Annotated[str, Field(max_length=200)]] = Field([], max_length=20)
    mode: Mode = "fast"
    tier: Tier = "standard"


class UiMessages(BaseModel):
    """What the AI SDK's chat transport posts: the whole conversation, of which the last user message counts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "chat-1",
                    "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}],
                    "trigger": "submit-message",
                }
            ]
        }
    )

    id: str | None = None
    messages: list[dict[str, Any]] = Field(min_length=1)
    trigger: str | None = None


class UiMessage(BaseModel):
    """One message of the AI SDK; what is no text in it is not for us."""

    id: str = ""
    parts: list[dict[str, Any]]

    @property
    def text(self) -> str:
        texts = [part.get("text") for part in self.parts if part.get("type") == "text"]
        return "\n".join(text for text in texts if isinstance(text, str))


async def read_body(chunks: AsyncIterator[bytes]) -> bytes:
    """A request's body, up to a size.

    Raises:
        ProblemError: 413.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > BODY_MAX:
            raise ProblemError(413, "too-large", f"A request may have up to {BODY_MAX} bytes.")
    return bytes(body)


def parse(body: bytes, session_id: str) -> IncomingMessage:
    """The message in a body.

    Raises:
        ProblemError: 422, with where and why.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid([{"loc": ["body"], "msg": f"not JSON: {error}", "type": "json_invalid"}]) from error
    if not isinstance(found, dict):
        raise invalid([{"loc": ["body"], "msg": "should be an object", "type": "dict_type"}])
    try:
        if "message" not in found and "messages" in found:
            found = _from_ui(UiMessages.model_validate(found), found, session_id)
        message = PostMessage.model_validate(found)
    except ValidationError as error:
        raise invalid(
            [{**defect, "loc": ["body", *defect["loc"]]} for defect in error.errors(include_url=False)]
        ) from error
    # `file_ids` name files of the user; there is no way to upload one yet, so every id is unknown and dropped.
    context = message.context.model_dump(exclude_none=True) if message.context else None
    return IncomingMessage(
        str(message.message_id or uuid4()), message.message, context or None, message.mode, message.tier
    )


def _from_ui(posted: UiMessages, found: dict[str, Any], session_id: str) -> dict[str, Any]:
    of_user = [message for message in posted.messages if message.get("role") == "user"]
    if not of_user:
        raise invalid([{"loc": ["body", "messages"], "msg": "should have a user message", "type": "missing"}])
    last = UiMessage.model_validate(of_user[-1])
    ours: dict[str, Any] = {name: found[name] for name in ("context", "file_ids", "mode", "tier") if name in found}
    return {**ours, "message": last.text, "message_id": _message_id(last.id, session_id)}


def _message_id(sent: str, session_id: str) -> str | None:
    """The AI SDK's ids are short random texts: the same one must be the same message again, within its session."""
    if not sent:
        return None
    try:
        return str(UUID(sent))
    except ValueError:
        return row_id(session_id, "ai-sdk", sent)
