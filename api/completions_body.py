"""The body that clients of OpenAI's Chat Completions post, unmodified."""

from itertools import takewhile
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.chat_body import ClientSessionId
from api.client_tools import DESCRIPTION_MAX, TOOLS_MAX, DeclaredTool, checked_tools, result_text
from api.problems import ProblemError, invalid
from api.request_body import ON_BUSY, PostMessage, json_object, validated
from longhaul.db.busy import OnBusy
from longhaul.llm.models import Effort
from longhaul.tools.client_tools import ClientTool
from longhaul.tools.registry import NAME

HISTORY_MAX = 1000
FUNCTIONS_REFUSED = "`functions` are the old form of `tools`, which are taken"
CHOICE_REFUSED = (
    "only `auto` and `none` are taken: a turn makes as many model calls as it needs, and each would have to call a tool"
)


class CompletionMetadata(BaseModel):
    """Ours is `session_id`; other keys are ignored."""

    session_id: ClientSessionId | None = Field(None, description="The session. It is made with its first use.")


class StreamOptions(BaseModel):
    include_usage: bool = False


class CompletionMessage(BaseModel):
    """A message; only text is taken."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    tool_call_id: str | None = Field(None, max_length=200)
    content: str | Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None

    @property
    def text(self) -> str:
        if not isinstance(self.content, list):
            return self.content or ""
        return "\n".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")

    @property
    def only_text(self) -> bool:
        return not isinstance(self.content, list) or all(part.get("type") == "text" for part in self.content)


class CallerFunction(BaseModel):
    """A tool of the caller, as OpenAI writes it; `strict` is ignored."""

    name: str = Field(pattern=f"^{NAME.pattern}$")
    description: str | None = Field(None, max_length=DESCRIPTION_MAX)
    parameters: dict[str, Any] | None = None


class CallerTool(BaseModel):
    type: Literal["function"] = "function"
    function: CallerFunction

    @property
    def declared(self) -> DeclaredTool:
        given = {name: value for name, value in self.function.model_dump().items() if value is not None}
        return DeclaredTool.model_validate(given)


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
    tools: (
        Annotated[
            list[CallerTool],
            Field(
                max_length=TOOLS_MAX,
                fail_fast=True,
                description="Tools that the caller runs itself. Longhaul's own are there as well, and run inside.",
            ),
        ]
        | None
    ) = None
    tool_choice: Literal["auto", "none"] | None = None

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
        """What a person says; empty: the request only brings results of the caller's tools."""
        last = self.messages[-1]
        return last.text if last.role == "user" else ""

    @property
    def results(self) -> dict[str, str]:
        """The results of the caller's tools behind the assistant's newest message, by the ids of their calls."""
        newest = takewhile(lambda one: one.role != "assistant", reversed(self.messages))
        return {one.tool_call_id or "": result_text(one.text) for one in newest if one.role == "tool"}

    @property
    def declared(self) -> tuple[ClientTool, ...] | None:
        """The caller's tools; None: it says nothing of tools."""
        if self.tool_choice == "none":
            return ()
        return checked_tools([one.declared for one in self.tools], "tools") if self.tools is not None else None


def parse_completion(body: bytes) -> ChatCompletion:
    """A body of OpenAI's clients.

    Raises:
        ProblemError: 422, with where and why.
    """
    fields = json_object(body)
    if fields.get("functions"):
        raise _refused("functions", FUNCTIONS_REFUSED)
    if fields.get("tool_choice") not in (None, "auto", "none"):
        raise _refused("tool_choice", CHOICE_REFUSED)
    completion = validated(ChatCompletion, fields)
    last = completion.messages[-1]
    if last.role not in ("user", "tool"):
        raise _refused("messages", "the last message should be the user's, or a tool's with a result")
    if not last.only_text:
        raise _refused("messages", "only text is taken")
    if last.role == "user":
        validated(PostMessage, {"message": completion.asked})
    return completion


def invalid_results(why: str) -> ProblemError:
    """The problem of results that fit to no call that waits."""
    return _refused("messages", why)


def _refused(name: str, why: str) -> ProblemError:
    return invalid([{"loc": ["body", name], "msg": why, "type": "not_taken"}])
