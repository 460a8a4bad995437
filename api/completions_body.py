"""The body that clients of OpenAI's Chat Completions post, unmodified."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.chat_body import ClientSessionId
from api.problems import ProblemError, invalid
from api.request_body import ON_BUSY, PostMessage, json_object, validated
from longhaul.db.busy import OnBusy
from longhaul.llm.models import Effort

HISTORY_MAX = 1000
TOOLS_REFUSED = (
    "tools of the caller are not taken yet; Longhaul runs its own tools inside the turn. Leave `tools` out, or add "
    "your tool to LONGHAUL_TOOLS"
)


class CompletionMetadata(BaseModel):
    """Ours is `session_id`; other keys are ignored."""

    session_id: ClientSessionId | None = Field(None, description="The session. It is made with its first use.")


class StreamOptions(BaseModel):
    include_usage: bool = False


class CompletionMessage(BaseModel):
    """A message; only text is taken."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None

    @property
    def text(self) -> str:
        if not isinstance(self.content, list):
            return self.content or ""
        return "\n".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")

    @property
    def only_text(self) -> bool:
        return not isinstance(self.content, list) or all(part.get("type") == "text" for part in self.content)


class ChatCompletion(BaseModel):
    """Fields that are not named here, such as `temperature`, are ignored: the operator's settings hold."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "standard", "messages": [{"role": "user", "content": "What is 17 * 23?"}]}]
        }
    )

    model: Annotated[str, Field(max_length=200, description="One of `GET /v1/models`.")]
    messages: Annotated[list[CompletionMessage], Field(min_length=1, max_length=HISTORY_MAX, fail_fast=True)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    user: str | None = Field(None, max_length=300, description="Each has a session of its own, if none is named.")
    metadata: CompletionMetadata | None = None
    reasoning_effort: Effort | None = None
    on_busy: OnBusy = Field(OnBusy.JOIN, description=ON_BUSY)

    @property
    def system(self) -> str:
        """The system messages, as the context of a new session."""
        return "\n\n".join(one.text for one in self.messages if one.role in ("system", "developer"))

    @property
    def history(self) -> list[CompletionMessage]:
        """What was said before the last message."""
        return [one for one in self.messages[:-1] if one.role in ("user", "assistant") and one.text.strip()]

    @property
    def asked(self) -> str:
        return self.messages[-1].text


def parse_completion(body: bytes) -> ChatCompletion:
    """A body of OpenAI's clients.

    Raises:
        ProblemError: 422, with where and why.
    """
    fields = json_object(body)
    for name in ("tools", "functions"):
        if fields.get(name):
            raise _refused(name, TOOLS_REFUSED)
    completion = validated(ChatCompletion, fields)
    last = completion.messages[-1]
    if last.role != "user":
        raise _refused("messages", "the last message should be the user's")
    if not last.only_text:
        raise _refused("messages", "only text is taken")
    validated(PostMessage, {"message": completion.asked})
    return completion


def _refused(name: str, why: str) -> ProblemError:
    return invalid([{"loc": ["body", name], "msg": why, "type": "not_taken"}])
