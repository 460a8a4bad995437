"""What the other contracts are made of."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


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


class SubSessionState(StrEnum):
    """What a sub-session tool answers with (contracts, section 8)."""

    RUNNING = "running"
    COMPLETED = "completed"
    ERROR = "error"
    CANCELLED = "cancelled"
    QUEUED = "queued"


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

    `published` turns false when the turn's stream broke: from then on its readers get stored rows. `parent_turn_id` is
    the turn that delegated this one: its stream gets the news of it.
    """

    session_id: str
    turn_id: str
    user_id: str
    published: bool = True
    parent_turn_id: str = ""


SUB_STATES = {
    TurnStatus.RUNNING: SubSessionState.RUNNING,
    TurnStatus.WAITING_FOR_APPROVAL: SubSessionState.RUNNING,
    TurnStatus.COMPLETED: SubSessionState.COMPLETED,
    TurnStatus.FAILED: SubSessionState.ERROR,
    TurnStatus.CANCELLED: SubSessionState.CANCELLED,
}
