"""A turn: its status, the argument and result of its workflow, its signals, the answer of its query."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TurnStatus(StrEnum):
    """How a turn stands; the last three are final."""

    RUNNING = "running"
    WAITING_FOR_APPROVAL = "waiting_for_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED)


class ToolStatus(StrEnum):
    """How a tool call stands. `lost`: its worker died, and the tool must not run twice."""

    RUNNING = "running"
    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    LOST = "lost"


class ParkKind(StrEnum):
    """What a tool call waits for: a person's consent, answer or credential, or the result of a client that runs it."""

    APPROVAL = "approval"
    QUESTION = "question"
    CLIENT_TOOL = "client_tool"
    CONNECT = "connect"


class SubSessionState(StrEnum):
    """The `status` in the result of a sub-session tool."""

    RUNNING = "running"
    COMPLETED = "completed"
    ERROR = "error"
    CANCELLED = "cancelled"
    QUEUED = "queued"


SUB_STATES = {
    TurnStatus.RUNNING: SubSessionState.RUNNING,
    TurnStatus.WAITING_FOR_APPROVAL: SubSessionState.RUNNING,
    TurnStatus.COMPLETED: SubSessionState.COMPLETED,
    TurnStatus.FAILED: SubSessionState.ERROR,
    TurnStatus.CANCELLED: SubSessionState.CANCELLED,
}


class Contract(BaseModel):
    """Base of the models in histories: immutable; unknown fields of another version are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Empty(Contract):
    """No fields yet: the argument of a query, or a result. Fields can be added later."""


class Usage(Contract):
    """Tokens and money of model calls; `cost_microdollars` is None when the price is unknown.

    `prompt_tokens` include those that were read from the provider's cache (`cached_tokens`) and those that were written
    to it (`cache_creation_tokens`); `completion_tokens` include `reasoning_tokens`.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    cache_creation_tokens: int = 0
    cost_microdollars: int | None = None

    def __add__(self, other: "Usage") -> "Usage":
        costs = [u.cost_microdollars for u in (self, other) if u.cost_microdollars is not None]
        return Usage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_creation_tokens=self.cache_creation_tokens + other.cache_creation_tokens,
            cost_microdollars=sum(costs) if costs else None,
        )


class TurnRef(Contract):
    """The ids by which every activity finds its rows: the turn, its session and its user.

    `published` turns false when the turn's stream breaks: from then on its readers get stored rows. `parent_turn_id` is
    the turn that delegated this one: its stream shows this turn's progress.
    """

    session_id: str
    turn_id: str
    user_id: str
    published: bool = True
    parent_turn_id: str = ""


class FollowUp(Contract):
    """Signal with an accepted message: its text waits in the database under this id, which its sender chose.

    Attributes:
        turn_id: the turn that the message belongs to, as decided when it was accepted. Empty: sent by an older version;
            the message then belongs to the turn that receives it.
        model, mode, tier: those of a turn that begins with this message; empty: those of the turn before.
        effort: belongs to the mode; empty: as the mode says.
        chosen: which of "mode" (with its effort) and "tier" (with its model) also take effect in a turn that runs
            already, from the next model call on.
        scope: what a turn that begins with this message may do; None: as the turn before, without its deadlines.
        parent_turn_id: the turn that delegates this message; empty for a message of a person.
    """

    message_id: str
    received_at: datetime
    turn_id: str = ""
    model: str = ""
    mode: str = ""
    tier: str = ""
    chosen: tuple[str, ...] = ()
    scope: "Scope | None" = None
    parent_turn_id: str = ""
    effort: str = ""


class SubSessionEnded(Contract):
    """Signal of a sub-session to its parent's turn: the sub-session's turn has ended."""

    sub_session_id: str
    turn_id: str
    status: SubSessionState


class CostLimits(Contract):
    """What a user of the default tier may spend in a day and a week, in microdollars; 0: no limit."""

    daily: int = 0
    weekly: int = 0


class CallAnswered(Contract):
    """Signal that a call which waits for a person or a client has been answered. The answer is in its row."""

    approval_id: str


class TurnLimits(Contract):
    """The settings that workflow code decides by, frozen into the turn when it starts."""

    max_rounds: int = 200
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
    answer_timeout: float = 86_400.0
    daily_cost_limit: int = 0
    weekly_cost_limit: int = 0

    @property
    def cost(self) -> CostLimits:
        return CostLimits(daily=self.daily_cost_limit, weekly=self.weekly_cost_limit)


class Budget(Contract):
    """What a session and all sessions below it may use. A turn's work ends at `deadline`, in every session below."""

    session_id: str
    max_cost_microdollars: int | None = None
    max_seconds: int | None = None
    deadline: datetime | None = None

    def whose(self, session_id: str) -> str:
        """The owner of the budget, in words for the session `session_id`."""
        return "this session" if self.session_id == session_id else f"session {self.session_id} above it"

    def time_used_up(self, session_id: str) -> str:
        return (
            f"The time budget of {self.whose(session_id)} is used up: {self.max_seconds} seconds. "
            "Nothing more was asked of the model."
        )


class Scope(Contract):
    """What a session may do. It is inherited by its sub-sessions and can only narrow on the way down.

    `detached` alone is not inherited: the session goes on when the turn that started it is stopped.
    """

    depth: int = 0
    ancestors: tuple[str, ...] = ()
    root_session_id: str = ""
    allow_tools: tuple[str, ...] | None = None
    deny_tools: tuple[str, ...] = ()
    dry_run: bool = False
    budgets: tuple[Budget, ...] = ()
    detached: bool = False

    def path(self, session_id: str) -> str:
        """The ids from the root down to a session of this scope. Paths of sessions below it begin with this path."""
        return "".join(f"{ancestor}/" for ancestor in (*self.ancestors, session_id))


#: The tool by which a copilot shows its plan.
PLAN_TOOL = "update_plan"


#: The tool by which a copilot shows a file.
SHARE_TOOL = "share_file"


class PlanStep(Contract):
    """One step of the plan that a copilot shows."""

    step: str = Field(max_length=500)
    status: Literal["pending", "in_progress", "completed"] = "pending"


class ToolProgress(Contract):
    """How far a tool call is, in the tool's own words and units."""

    text: str = ""
    done: float | None = None
    total: float | None = None


class ToolRecord(Contract):
    """One tool call as the progress shows it.

    `progress` is what the tool reported last. It is read when the turn's progress is asked for. Workflows and histories
    have it empty.
    """

    tool_call_id: str
    name: str
    round: int
    status: ToolStatus = ToolStatus.RUNNING
    started_at: datetime
    ended_at: datetime | None = None
    progress: ToolProgress | None = None


class ConnectRequest(Contract):
    """What a call of the kind `connect` asks of a person: to connect to a provider, or to give a token.

    `credential`: the name under which the tool asks for it. `provider`: the title of the provider; None: there is
    none, so the person gives a token (`PUT /v1/credentials/{name}`). `url`: the address to open at the API.
    """

    credential: str
    provider: str | None = None
    url: str | None = None


class WaitingCall(Contract):
    """One tool call that waits for a person or a client, as the progress shows it. `approval_id` names it for them."""

    approval_id: str
    tool_call_id: str
    name: str
    round: int
    kind: ParkKind
    asked_at: datetime
    expires_at: datetime | None = None
    connect: ConnectRequest | None = None


class SubSessionRecord(Contract):
    """One sub-session as its parent's progress shows it.

    `task` is the sub-session's title. It is read from rows when the progress is asked for. Workflows and
    histories have it empty.
    """

    sub_session_id: str
    turn_id: str
    task: str = ""
    status: SubSessionState = SubSessionState.RUNNING
    detached: bool = False
    started_at: datetime
    ended_at: datetime | None = None


class Progress(Contract):
    """What a poller sees: the same for a running turn (from workflow state) and an ended one (from its row).

    `plan_call_id`: the newest call that changed the plan. `plan` is read from that call's row when the progress is
    asked for. Workflows and histories have it empty.
    """

    turn_id: str
    session_id: str
    status: TurnStatus
    round: int = 0
    model: str = ""
    tools_running: list[ToolRecord] = []
    waiting_calls: list[WaitingCall] = Field(default=[], description="Calls that wait for a person or a client.")
    tools_done: int = 0
    recent_tools: list[ToolRecord] = Field(default=[], description="The newest 20 that have ended.")
    sub_sessions: list[SubSessionRecord] = []
    inbox: list[FollowUp] = []
    usage: Usage = Usage()
    started_at: datetime
    ended_at: datetime | None = None
    duration_ms: int | None = None
    error: str | None = None
    plan_call_id: str = ""
    plan: list[PlanStep] = Field(default=[], description="The copilot's steps, as it showed them last in this turn.")


class TurnState(Contract):
    """The state that a turn carries over when it continues as new. `seen`: ids of the messages that it has taken.

    `model`, `mode`, `tier` and `effort` are what its messages have chosen; empty, or None: those of the turn's start.
    `fallback`: the
    fallback model that the next model call begins with; empty: `model`. `client_tools`: the id of the tools that its
    messages have declared; empty: none.
    """

    started_at: datetime
    round: int = 0
    opened: bool = False
    answered_with_text: bool = False
    tools_done: int = 0
    recent_tools: list[ToolRecord] = []
    sub_sessions: list[SubSessionRecord] = []
    usage: Usage = Usage()
    seen: list[str] = []
    step_open: bool = False
    published: bool = True
    budgets: tuple[Budget, ...] = ()
    model: str = ""
    mode: str = ""
    tier: str = ""
    compaction_due: bool = False
    fallback: str = ""
    plan_call_id: str = ""
    effort: str | None = None
    client_tools: str = ""


class TurnInput(Contract):
    """Argument of both turn workflows. A turn that continues as new passes its `state` and its `inbox` on.

    `rows_decide`: the message rows say which turn a message belongs to. False in turns that began on a version without
    that; they end and replay by that version's rules. `follows_turn`: it begins where another turn of its session has
    ended, for messages that may have been accepted as follow-ups. `retry_of`: the failed turn that this one takes up
    again, without a message of its own.
    """

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
    parent_turn_id: str = ""
    rows_decide: bool = False
    follows_turn: bool = False
    retry_of: str = ""
    effort: str = ""


class TurnResult(Contract):
    """How a turn ended, for the Web UI and for a parent's turn."""

    turn_id: str
    status: TurnStatus
    rounds: int
    usage: Usage
    error: str | None = None
