"""Arguments and results of the activities of a turn."""

from datetime import datetime

from longhaul.contracts.base import Contract, ToolStatus, TurnRef, Usage
from longhaul.contracts.turn import Budget, Progress, Scope


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
    """`taken`: messages that are new; none means that there is nothing to answer. `budgets`: all that hold for it."""

    taken: list[str]
    title_wanted: bool = False
    budgets: tuple[Budget, ...] = ()
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
    """A tool call of the model.

    `arguments` travel only for tools that the workflow itself performs. `quick`: it runs within the workflow task.
    """

    tool_call_id: str
    name: str
    arguments: str | None = None
    quick: bool = False


class ModelAnswer(Contract):
    """What the workflow decides on after a model call; the answer itself is in the database."""

    message_id: str
    finish_reason: str
    has_text: bool = False
    tool_calls: list[ToolCall] = []
    usage: Usage = Usage()
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
