"""Request bodies: read within a size limit and after authentication; messages in our format and in the AI SDK's."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from uuid import UUID, uuid4

import orjson
from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from api.attachments import FILES_MAX, FileReference, InlineFile, references
from api.client_tools import DeclaredTools, checked_tools
from api.dependencies import ID, CurrentUser
from api.problems import ProblemError, invalid
from longhaul.db.busy import OnBusy
from longhaul.db.messages import row_id
from longhaul.llm.models import Effort
from longhaul.settings.models import Tier
from longhaul.tools.client_tools import ClientTool
from longhaul.turns.deliver import IncomingMessage, Mode

MESSAGE_MAX = 32_000
# In bytes. The AI SDK posts the whole conversation with every message, hence the larger limit for messages.
BODY_MAX, MESSAGE_BODY_MAX = 64 * 1024, 4 * 1024 * 1024
REGENERATED_ELSEWHERE = ProblemError(
    409, "regenerated-elsewhere", "An answer is made again by POST /v1/chat; here, send a message under a new id."
)
Model = TypeVar("Model", bound=BaseModel)
#: All bodies that the API reads itself, for the document.
BODIES: dict[type[BaseModel], None] = {}


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("should not be empty or blank")
    return text


Text = Annotated[str, Field(min_length=1, max_length=MESSAGE_MAX), AfterValidator(_not_blank)]
FileId = Annotated[str, Field(max_length=200, pattern=ID)]

ModelName = Annotated[str, Field(min_length=1, max_length=200, examples=["gpt-5"])]
ON_BUSY = (
    "What becomes of the message if a turn runs. `join`: it is a follow-up of that turn. `queue`: it begins a turn of "
    "its own behind that one. `interrupt`: that turn is stopped, and the message begins the next. `rollback`: the "
    "same, and the stopped turn leaves the conversation. `reject`: 409. An edit always stops what runs."
)
MODEL_CHOICE = "One of `GET /v1/models`."


class PageContext(BaseModel):
    """The page that the user is looking at."""

    url: str | None = Field(None, max_length=2000, examples=["https://example.com/orders/17"])
    content: str | None = Field(None, max_length=MESSAGE_MAX)


class PostMessage(BaseModel):
    """A message to a session."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"message": "What is 17 * 23?"}]})

    message: Text
    message_id: UUID | None = Field(None, description="Yours, so that a repeated POST is one message.")
    context: PageContext | None = None
    file_ids: list[FileId] = Field(
        [], max_length=FILES_MAX, fail_fast=True, description="Of `POST /v1/files`. Unknown ones are dropped."
    )
    mode: Mode = "fast"
    tier: Tier = "standard"
    model: ModelName | None = Field(None, description=f"{MODEL_CHOICE} It counts before `tier`.")
    effort: Effort | None = Field(None, description="How much the model thinks. It counts before `mode`.")
    on_busy: OnBusy = Field(OnBusy.JOIN, description=ON_BUSY)
    client_tools: DeclaredTools | None = None


class UiMessages(BaseModel):
    """The body of the AI SDK's chat transport: the whole conversation. Only its last user message is read."""

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
    messages: list[Any] = Field(min_length=1, description="`{id, role, parts}` each.")
    trigger: str | None = None


class UiMessage(BaseModel):
    """One message of the AI SDK. Parts other than text and files are ignored."""

    id: str = ""
    parts: list[dict[str, Any]] = Field(fail_fast=True)

    @property
    def text(self) -> str:
        texts = [part.get("text") for part in self.parts if part.get("type") == "text"]
        return "\n".join(text for text in texts if isinstance(text, str))


async def read_body(request: Request, limit: int) -> bytes:
    """A request's body of up to `limit` bytes.

    Raises:
        ProblemError: 413, as soon as it is known to be larger.
    """
    too_large = ProblemError(413, "too-large", f"This request may have up to {limit} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def json_body(model: type[Model], limit: int = BODY_MAX) -> Callable[..., Awaitable[Model]]:
    """A dependency that reads the body, of up to `limit` bytes, as `model`; an empty body counts as `{}`.

    FastAPI reads a body parameter before it resolves dependencies. This one depends on the user, so a request without
    a valid token is refused before its body is read.
    """

    async def parsed(request: Request, _user: CurrentUser) -> Model:
        return validated(model, json_object(await read_body(request, limit) or b"{}"))

    return parsed


def body_schema(
    *models: type[BaseModel], examples: Mapping[str, Any] | None = None, required: bool = False
) -> dict[str, Any]:
    """The OpenAPI entry of a body that the API reads itself."""
    BODIES.update(dict.fromkeys(models))
    references = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in models]
    content: dict[str, Any] = {"schema": references[0] if len(references) == 1 else {"anyOf": references}}
    if examples is not None:
        content["examples"] = examples
    return {"requestBody": {"required": required or len(models) > 1, "content": {"application/json": content}}}


@dataclass(frozen=True)
class SentMessage:
    """A valid message, its files, and the tools that its sender declares (None: it says nothing of tools)."""

    message: IncomingMessage
    files: tuple[FileReference, ...] = ()
    client_tools: tuple[ClientTool, ...] | None = None


def parse_message(body: bytes, session_id: str, key: str | None = None) -> SentMessage:
    """The message in a body. Its id is the sender's, or follows from the `Idempotency-Key`, or is made up.

    Raises:
        ProblemError: 422, with where and why.
    """
    fields = json_object(body)
    files: tuple[FileReference, ...] = ()
    if "message" not in fields and "messages" in fields:
        fields, files = _from_ui(fields, session_id)
    message = validated(PostMessage, fields)
    context = message.context.model_dump(exclude_none=True) if message.context else None
    incoming = IncomingMessage(
        own_id(message.message_id, session_id, key),
        message.message,
        context or None,
        # A follow-up that does not name them leaves those of its turn as they are.
        mode=message.mode if "mode" in message.model_fields_set else None,
        tier=message.tier if "tier" in message.model_fields_set else None,
        model=message.model,
        effort=message.effort,
        on_busy=message.on_busy,
    )
    tools = checked_tools(message.client_tools) if message.client_tools is not None else None
    return SentMessage(incoming, (*message.file_ids, *files), tools)


def own_id(sent: UUID | None, session_id: str, key: str | None) -> str:
    """The id of a new message: the sender's, or that of its `Idempotency-Key`, or one that is made up."""
    return str(sent or (row_id(session_id, "key", key) if key is not None else uuid4()))


def json_object(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object.

    Raises:
        ProblemError: 422, it is not.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid([{"loc": ["body"], "msg": f"not JSON: {error}", "type": "json_invalid"}]) from error
    if not isinstance(value, dict):
        raise invalid([{"loc": ["body"], "msg": "should be an object", "type": "dict_type"}])
    return value


def validated(model: type[Model], fields: dict[str, Any]) -> Model:
    """The fields of a body as `model`.

    Raises:
        ProblemError: 422, with where and why.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        defects = error.errors(include_url=False, include_input=False)
        raise invalid([{**defect, "loc": ["body", *defect["loc"]]} for defect in defects]) from error


def text_of(message: UiMessage, files: Sequence[FileReference]) -> str:
    """The text of a message. A message of files alone has their names as its text."""
    names = (one.name for one in files if isinstance(one, InlineFile))
    return message.text if message.text.strip() or not files else ", ".join(names) or "(files)"


def _from_ui(fields: dict[str, Any], session_id: str) -> tuple[dict[str, Any], tuple[FileReference, ...]]:
    body = validated(UiMessages, fields)
    if body.trigger == "regenerate-message":
        # The message is known, so it would be answered with the very answer that the client wants replaced.
        raise REGENERATED_ELSEWHERE
    messages = reversed(body.messages)
    newest = next(
        (message for message in messages if isinstance(message, dict) and message.get("role") == "user"), None
    )
    if newest is None:
        raise invalid([{"loc": ["body", "messages"], "msg": "should have a user message", "type": "missing"}])
    message = validated(UiMessage, newest)
    files = references(message.parts)
    names = ("context", "file_ids", "mode", "tier", "model", "effort", "on_busy", "client_tools")
    options: dict[str, Any] = {name: fields[name] for name in names if name in fields}
    sent = {**options, "message": text_of(message, files), "message_id": _message_id(message.id, session_id)}
    return sent, files


def _message_id(sent: str, session_id: str) -> str | None:
    """The AI SDK's ids are short random texts. The same one is the same message within its session."""
    if not sent:
        return None
    try:
        return str(UUID(sent))
    except ValueError:
        return row_id(session_id, "ai-sdk", sent)
