"""Tools that the workflow performs itself, because they are timers and child workflows.

Of all tools, only the arguments of these travel through workflow history: their numbers and ids, no text.
"""

from uuid import UUID

from pydantic import BaseModel, Field, field_validator

from longhaul.contracts import Delegation, ToolCall
from longhaul.tools.context import ToolError
from longhaul.tools.registry import Tool


class WaitFor(BaseModel):
    seconds: float = Field(gt=0, description="How long to wait")


class RunSubSession(BaseModel):
    prompt: str = Field(
        max_length=32_000, description="The task, complete in itself: the sub-session sees nothing else"
    )
    system_context: str = Field("", max_length=32_000, description="Background for the whole sub-session")
    sub_session_id: str = Field("", max_length=64, description="Go on in this sub-session instead of a new one")
    agent: str = Field("", max_length=100, description="Agent profile to run as")
    wait_for_result: float = Field(60, description="Seconds to wait for the result, 0 to 300; 0 returns a handle")
    detached: bool = Field(default=False, description="Whether it goes on when this turn is stopped")
    allow_tools: list[str] | None = Field(None, description="Tools it may use, of those this session may use")
    dry_run: bool = Field(default=False, description="Whether it must change nothing")
    max_cost_microdollars: int | None = Field(None, ge=1, description="Its budget in millionths of a US dollar")
    max_seconds: int | None = Field(None, ge=1, description="Its time in seconds")

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("the prompt is empty; say what the sub-session is to do")
        return prompt

    def delegation(self) -> Delegation:
        """The part of the arguments that the workflow decides by."""
        return Delegation(
            sub_session_id=self.sub_session_id, wait_for_result=self.wait_for_result, detached=self.detached
        )


class GetSubSessionResult(BaseModel):
    sub_session_id: str = Field(max_length=64, description="As run_sub_session returned it")
    wait_if_running: float = Field(60, description="Seconds to wait if it still runs, 0 to 300")
    cancel: bool = Field(default=False, description="Stop it and all below it")
    include_progress: bool = Field(default=False, description="Also the number of its messages and the last five")


def _require_id(value: str) -> str:
    """Refuse what is no id: it would be text of the model in a history."""
    try:
        return str(UUID(value)) if value else value
    except ValueError:
        raise ValueError("there is no sub-session of this id; copy it from a result of run_sub_session") from None


class _NewRunSubSession(RunSubSession):
    """As a model may write it now. Rows and histories of older versions may hold other ids."""

    _id = field_validator("sub_session_id")(_require_id)


class _NewGetSubSessionResult(GetSubSessionResult):
    """As `_NewRunSubSession`."""

    _id = field_validator("sub_session_id")(_require_id)


wait = Tool("wait", "Wait for a while, then go on. Survives restarts.", WaitFor, None)
run_sub_session = Tool(
    "run_sub_session",
    "Hand a task to a sub-session that works beside you, and wait for its answer or get a handle to poll.",
    _NewRunSubSession,
    None,
)
get_sub_session_result = Tool(
    "get_sub_session_result",
    "The status and answer of a sub-session, waiting for it if it still runs; or stop it.",
    _NewGetSubSessionResult,
    None,
)
WORKFLOW_TOOLS = {tool.name: tool for tool in (wait, run_sub_session, get_sub_session_result)}


def for_workflow(call: ToolCall, arguments: str) -> ToolCall:
    """The call with what the workflow needs to perform it; `arguments` as the model wrote them.

    Calls of other tools stay as they are. So do calls whose arguments are not valid: they run as activities, which
    store what is wrong with them.
    """
    if (tool := WORKFLOW_TOOLS.get(call.name)) is None:
        return call
    try:
        parsed = tool.parse(arguments)
    except ToolError:
        return call
    if isinstance(parsed, RunSubSession):
        return call.model_copy(update={"delegation": parsed.delegation()})
    return call.model_copy(update={"arguments": parsed.model_dump_json()})
