"""Every model that crosses a Temporal boundary: one in, one out, for each workflow, activity, signal and query.

They carry ids, statuses and counts, never text of a conversation: that lives in the database. Fields are only ever
added, with defaults, so that a history recorded by an older version still decodes.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class TurnStatus(StrEnum):
    """Where a turn stands; the last three are final."""

    RUNNING = "running"
    WAITING_FOR_APPROVAL = "waiting_for_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED)


class ToolStatus(StrEnum):
    """Where a tool call stands. `lost`: its worker died and it had said that it must not run twice."""

    RUNNING = "running"
    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    LOST = "lost"


class Contract(BaseModel):
    """Base of the models in histories: unknown fields of a newer version are ignored, ours are immutable."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Empty(Contract):
    """Nothing to say; room to grow."""


class Usage(Contract):
    """Tokens and money of model calls; `cost_microdollars` is None when nobody knows the price."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cost_microdollars: int | None = None

    def __add__(self, other: "Usage") -> "Usage":
        costs = [u.cost_microdollars for u in (self, other) if u.cost_microdollars is not None]
        return Usage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cost_microdollars=sum(costs) if costs else None,
        )


class TurnRef(Contract):
    """Which turn of which session of whom: what every activity needs to find its rows.

    `published` turns false when the turn's stream broke: from then on its readers get stored rows.
    """

    session_id: str
    turn_id: str
    user_id: str
    published: bool = True


class FollowUp(Contract):
    """A message that was accepted: its text waits in the database under this id, which its sender chose."""

    message_id: str
    received_at: datetime


class TurnLimits(Contract):
    """The settings that workflow code decides by, frozen into the turn when it starts."""

    max_rounds: int = 200
    max_pending: int = 10
    heartbeat_timeout: float = 15.0
    tool_timeout: float = 300.0
    tool_tries: int = 3
    storage_window: float = 3600.0
    model_max_seconds: float = 7200.0
    wait_max_seconds: float = 3600.0
    max_tool_wait: float = 300.0
    max_depth: int = 3
    max_children: int = 8
    continue_as_new_events: int = 8000


class Scope(Contract):
    """What a session may do. It is inherited by its sub-sessions and can only narrow on the way down."""

    depth: int = 0
    ancestors: tuple[str, ...] = ()
    root_session_id: str = ""
    allow_tools: tuple[str, ...] | None = None
    deny_tools: tuple[str, ...] = ()
    dry_run: bool = False


class SubSessionState(StrEnum):
    """What a sub-session tool answers with (contracts, section 8)."""

    RUNNING = "running"
    COMPLETED = "completed"
    ERROR = "error"
    CANCELLED = "cancelled"
    QUEUED = "queued"


class ToolRecord(Contract):
    """One tool call as the progress shows it."""

    tool_call_id: str
    name: str
    round: int
    status: ToolStatus = ToolStatus.RUNNING
    started_at: datetime
    ended_at: datetime | None = None


class SubSessionRecord(Contract):
    """One sub-session as its parent's progress shows it."""

    sub_session_id: str
    turn_id: str
    task: str = ""
    status: SubSessionState = SubSessionState.RUNNING
    detached: bool = False
    started_at: datetime
    ended_at: datetime | None = None


class Progress(Contract):
    """What a poller sees; the same for a running turn (from workflow state) and an ended one (from its row)."""

    turn_id: str
    session_id: str
    status: TurnStatus
    round: int = 0
    model: str = ""
    tools_running: list[ToolRecord] = []
    tools_done: int = 0
    recent_tools: list[ToolRecord] = Field(default=[], description="The newest 20 that have ended.")
    sub_sessions: list[SubSessionRecord] = []
    inbox: list[FollowUp] = []
    usage: Usage = Usage()
    started_at: datetime
    ended_at: datetime | None = None
    duration_ms: int | None = None
    error: str | None = None


class TurnState(Contract):
    """All that a turn carries over when it continues as new."""

    turn_id: str
    started_at: datetime
    round: int = 0
    opened: bool = False
    answered_with_text: bool = False
    tools_done: int = 0
    recent_tools: list[ToolRecord] = []
    sub_sessions: list[SubSessionRecord] = []
    usage: Usage = Usage()
    seen: list[str] = []
    title_wanted: bool = False
    step_open: bool = False
    published: bool = True


class TurnInput(Contract):
    """Argument of both turn workflows. `state` is given when a turn continues as new, `inbox` what it took along."""

    session_id: str
    user_id: str
    turn_id: str
    model: str
    mode: str = "fast"
    tier: str = "standard"
    limits: TurnLimits = TurnLimits()
    scope: Scope = Scope()
    inbox: list[FollowUp] = []
    state: TurnState | None = None


class TurnResult(Contract):
    """How a turn ended."""

    turn_id: str
    status: TurnStatus
    rounds: int
    usage: Usage
    error: str | None = None


class OpenTurn(Contract):
    """Start the turn's row, store the first messages, mend what an earlier turn left open."""

    turn: TurnRef
    message_ids: list[str]
    model: str
    mode: str
    tier: str
    scope: Scope = Scope()
    started_at: datetime


class OpenedTurn(Contract):
    """`taken`: messages that are new; none means that there is nothing to answer. `refused`: why not to go on."""

    taken: list[str]
    title_wanted: bool = False
    refused: str | None = None
    budget_seconds_left: float | None = None
    published: bool = True


class TakeInbox(Contract):
    """Store follow-ups behind the rows of a round."""

    turn: TurnRef
    round: int
    message_ids: list[str]


class TakenInbox(Contract):
    """Which of them were new."""

    taken: list[str]
    published: bool = True


class CallModel(Contract):
    """One round's model call. `title_wanted`: name the new session on the side. `step_open`: the stream's step of the
    round before still waits for its end, because tools gave their outputs into it."""

    turn: TurnRef
    round: int
    model: str
    mode: str = "fast"
    scope: Scope = Scope()
    title_wanted: bool = False
    step_open: bool = False


class ToolCall(Contract):
    """A tool call of the model. `arguments` travel only for tools that the workflow itself performs."""

    tool_call_id: str
    name: str
    arguments: str | None = None


class ModelAnswer(Contract):
    """What the workflow decides on after a model call; the answer itself is in the database."""

    message_id: str
    finish_reason: str
    has_text: bool = False
    tool_calls: list[ToolCall] = []
    usage: Usage = Usage()
    budget_reached: str | None = None
    published: bool = True


class RunTool(Contract):
    """Run one tool call; arguments are read from the assistant row `message_id`."""

    turn: TurnRef
    round: int
    message_id: str
    tool_call_id: str
    name: str
    scope: Scope = Scope()
    max_tries: int = 3


class ToolOutcome(Contract):
    """How a tool call ended; its output is in the database."""

    tool_call_id: str
    status: ToolStatus
    published: bool = True


class StoreToolResult(Contract):
    """Store the result of a tool that the workflow performed."""

    turn: TurnRef
    round: int
    tool_call_id: str
    name: str
    output: str
    is_error: bool = False


class CloseTurn(Contract):
    """Final status, rows for what is open, `finish`. `waiting`: messages that a stopped turn did not come to."""

    turn: TurnRef
    progress: Progress
    answered_with_text: bool
    finish_reason: str = ""
    round_limit_reached: bool = False
    step_open: bool = False
    waiting: list[str] = []
    model: str = ""
    mode: str = "fast"
    tier: str = "standard"


class ClosedTurn(Contract):
    """Whether this call stored the end (False: an earlier try had)."""

    stored: bool = True
