"""What goes into a turn workflow and comes out of it: arguments, signals, the answer of the `progress` query."""

from datetime import datetime

from pydantic import Field

from longhaul.contracts.base import Contract, SubSessionState, ToolStatus, TurnStatus, Usage


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


class Budget(Contract):
    """What a session and all below it may use. `deadline` is absolute: a turn's work ends there, wherever it is."""

    session_id: str
    max_cost_microdollars: int | None = None
    max_seconds: int | None = None
    deadline: datetime | None = None

    def whose(self, session_id: str) -> str:
        """Whose budget it is, as the session `session_id` says it."""
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
        """The way from the root down to a session of this scope; what lies below it begins with it."""
        return "".join(f"{ancestor}/" for ancestor in (*self.ancestors, session_id))


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
    budgets: tuple[Budget, ...] = ()


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
    parent_turn_id: str = ""


class TurnResult(Contract):
    """How a turn ended."""

    turn_id: str
    status: TurnStatus
    rounds: int
    usage: Usage
    error: str | None = None
