"""Arguments and results of activities. An argument is named after the activity's verb."""

from datetime import datetime
from enum import StrEnum

from longhaul.contracts.turn import (
    Budget,
    ConnectRequest,
    Contract,
    CostLimits,
    ParkKind,
    Progress,
    Scope,
    SubSessionState,
    ToolStatus,
    TurnRef,
    TurnStatus,
    Usage,
)


class OpenTurn(Contract):
    """Start the turn's row, store its first messages, answer tool calls that an earlier turn left open.

    `cost_limits`: refuse the turn if its user has reached them; whoever started another turn has looked already.
    `retry_of`: the failed turn that this one takes up again, if it is still the session's newest.
    """

    turn: TurnRef
    model: str
    mode: str
    tier: str
    scope: Scope = Scope()
    started_at: datetime
    cost_limits: CostLimits = CostLimits()
    retry_of: str = ""


class OpenedTurn(Contract):
    """`taken`: the messages that were new; none: nothing to answer. `budgets`: those that limit the turn.

    `compaction_due`: the conversation is to be summarised before the model is called. `refusal`: why the user may start
    no turn now, so that this one fails. `retries`: the turn takes up a failed one, so it goes on without a message of
    its own. `next_turn_id`: this turn has not begun, because messages wait for that one, which begins first.
    `client_tools`: the id of the tools that its messages declare; None: they say nothing of tools.
    """

    taken: list[str]
    budgets: tuple[Budget, ...] = ()
    published: bool = True
    compaction_due: bool = False
    refusal: str = ""
    retries: bool = False
    next_turn_id: str = ""
    client_tools: str | None = None


class TakeInbox(Contract):
    """Place the messages that wait for a turn behind the rows of a round."""

    turn: TurnRef
    round: int


class TakenInbox(Contract):
    """`taken`: the follow-ups that were new. `client_tools`: as in `OpenedTurn`."""

    taken: list[str]
    published: bool = True
    client_tools: str | None = None


class CallModel(Contract):
    """One round's model call.

    `step_open`: the stream still has the previous round's step open, because its tools published their outputs in it.
    `progress`: the turn as it stands, if this call may end the turn with its answer; `tier` is stored with that end.
    `fallback`: the fallback model that answered the turn's newest call; this call begins with it. Empty: with `model`.
    `effort`: how much the model is to think; empty: as the mode says. `client_tools`: the id of the tools that the
    client declared and runs itself; empty: none.
    """

    turn: TurnRef
    round: int
    model: str
    mode: str = "fast"
    tier: str = "standard"
    scope: Scope = Scope()
    step_open: bool = False
    progress: Progress | None = None
    fallback: str = ""
    effort: str = ""
    client_tools: str = ""


class Delegation(Contract):
    """What the workflow decides by in a `run_sub_session` call. The call's texts stay in the assistant's row."""

    sub_session_id: str = ""
    wait_for_result: float = 60.0
    detached: bool = False


class ToolCall(Contract):
    """A tool call of the model.

    Attributes:
        arguments: numbers and ids, only for tools that the workflow performs: those of a wait, or of a look at a
            sub-session. Turns of older versions have those of `run_sub_session` here too, with its texts.
        delegation: what the workflow needs of a `run_sub_session` call.
        quick: the tool runs within the workflow task.
        parks: the call first waits for a person or a client; None: it does not.
        timeout: the tool's own, in seconds; None: as the turn's limits say.
        retries: how often the tool is started again when it ends by an exception.
        task_queue: the tool workers that run the tool; empty: this deployment's own workers do.
    """

    tool_call_id: str
    name: str
    arguments: str | None = None
    delegation: Delegation | None = None
    quick: bool = False
    parks: ParkKind | None = None
    timeout: float | None = None
    retries: int = 0
    task_queue: str = ""


class ModelAnswer(Contract):
    """What the workflow decides on after a model call; the answer itself is in the database.

    `turn_ended_at`: the transaction that stored the answer has also ended the turn, because no message waited for it.
    `compaction_due`: the conversation is to be summarised before the next call. `fallback`: the fallback model that
    answered, because the retries of those before it were used up; empty: the model that was to answer.
    """

    message_id: str
    finish_reason: str
    has_text: bool = False
    tool_calls: list[ToolCall] = []
    usage: Usage = Usage()
    published: bool = True
    turn_ended_at: datetime | None = None
    compaction_due: bool = False
    fallback: str = ""


class CompactContext(Contract):
    """Summarise the older part of a session's conversation; `round`: the last one before it."""

    turn: TurnRef
    round: int
    model: str
    scope: Scope = Scope()


class CompactedContext(Contract):
    """`compacted`: a summary is stored. If not, the model is given what fits of the conversation."""

    compacted: bool
    usage: Usage = Usage()
    published: bool = True


class RunTool(Contract):
    """Run one tool call; its arguments are in the assistant row `message_id`. `timeout`: seconds, 0 is no limit.

    `approved`: a person was asked, and has allowed it, perhaps with other arguments: its row says so.
    `retries`: how often a tool that ends by an exception is started again. `max_tries`: how often one is started whose
    worker dies. `connects`: how often a person was asked for a credential that this call lacked.
    """

    turn: TurnRef
    round: int
    message_id: str
    tool_call_id: str
    name: str
    scope: Scope = Scope()
    max_tries: int = 3
    timeout: float = 0
    approved: bool = False
    retries: int = 0
    connects: int = 0


class ToolOutcome(Contract):
    """How a tool call ended; its output is in the database. `cost_microdollars`: its price, if it has one and ran.

    `lacks`: the name of a credential without which the tool cannot go on. It has no output then, and is to run again
    when the person has given it.
    """

    tool_call_id: str
    status: ToolStatus
    published: bool = True
    cost_microdollars: int | None = None
    lacks: str = ""


class OpenedToolCall(Contract):
    """A call for tool workers, before one has it. `remote_call_id`: its row. `outcome`: it has ended without them."""

    remote_call_id: str = ""
    outcome: ToolOutcome | None = None


class RunRemoteTool(Contract):
    """Run one tool call on a tool worker, which asks the API for the arguments and gives it the result."""

    call: RunTool
    remote_call_id: str


class SettleToolCall(Contract):
    """Take the result that a tool worker has given to the API. `failure`: what to store if it gave none."""

    call: RunTool
    remote_call_id: str
    failure: str = ""


class GiveUp(StrEnum):
    """Why a turn does not wait any longer for the answer to a call."""

    TIME = "time"
    MESSAGE = "message"


class ParkCall(Contract):
    """Ask a person or a client about a tool call of the assistant row `message_id`.

    `timeout`: the seconds that the call waits, 0 is no limit. `credential`: the one that it lacks. `connects`: how
    often this call has asked for one, with this time.
    """

    turn: TurnRef
    round: int
    message_id: str
    tool_call_id: str
    name: str
    kind: ParkKind
    timeout: float = 0
    credential: str = ""
    connects: int = 0


class SettleCall(Contract):
    """Take the answer to a parked call. `give_up`: if there is none, do not wait any longer."""

    turn: TurnRef
    round: int
    tool_call_id: str
    name: str
    approval_id: str
    give_up: GiveUp | None = None


class ParkedCall(Contract):
    """How a parked call stands.

    `waits`: it has no answer yet. `outcome`: it has ended; None: the tool is to run. `connect`: what the person is
    asked to connect.
    """

    approval_id: str
    waits: bool = False
    asked_at: datetime | None = None
    expires_at: datetime | None = None
    outcome: ToolOutcome | None = None
    published: bool = True
    connect: ConnectRequest | None = None


class StoreToolResult(Contract):
    """Store the result of a tool that the workflow ran."""

    turn: TurnRef
    round: int
    tool_call_id: str
    name: str
    output: str
    is_error: bool = False


class CloseTurn(Contract):
    """Store the final status, end what is open, publish `finish`.

    `next_turn_id`: the turn that messages wait for which this turn could not take. `budget_reached`: the turn failed
    because a budget is used up.
    """

    turn: TurnRef
    progress: Progress
    answered_with_text: bool
    budget_reached: bool = False
    finish_reason: str = ""
    round_limit_reached: bool = False
    step_open: bool = False
    next_turn_id: str = ""
    model: str = ""
    mode: str = "fast"
    tier: str = "standard"


class ClosedTurn(Contract):
    """How a turn was closed.

    Attributes:
        ended: False if messages wait for this turn, so that it has to go on.
        status: the stored status, if it is not the one that was asked for: an attempt at the last model call had ended
            the turn already.
        next_turn_id: the turn that messages wait for now; empty if none wait.
    """

    ended: bool = True
    status: TurnStatus | None = None
    next_turn_id: str = ""


class Redelivered(Contract):
    """What a run of the redelivery did: how many messages it delivered again."""

    messages: int = 0


class CorrectedEstimates(Contract):
    """How many estimated costs a run has replaced by the endpoint's bills."""

    rows: int = 0


class PrepareSubSession(Contract):
    """Create (or find) the sub-session of a `run_sub_session` call and store its prompt, both from the call's row.

    `cost_limits`: those of the turn's user, which are checked if the prompt begins a turn.
    """

    turn: TurnRef
    round: int
    tool_call_id: str
    scope: Scope
    cost_limits: CostLimits = CostLimits()


class PreparedSubSession(Contract):
    """What the workflow starts the child with, or `error`: why not, for the model, without words that it wrote."""

    error: str | None = None
    sub_session_id: str = ""
    message_id: str = ""
    turn_id: str = ""
    run_turn_id: str = ""
    scope: Scope = Scope()
    published: bool = True


class LookAtSubSession(Contract):
    """Ask for the status of a sub-session below this session. `cancel`: stop it and all below it first.

    `message_id`: ask for the turn that takes this message, instead of the newest turn.
    """

    turn: TurnRef
    scope: Scope
    sub_session_id: str
    cancel: bool = False
    message_id: str = ""


class StopSubSessions(Contract):
    """Stop sub-sessions of a turn that was stopped, as a person stops them."""

    turn: TurnRef
    sub_session_ids: list[str]


class SubSessionSeen(Contract):
    """The status of a sub-session; `error`: there is no such sub-session, or another user owns it.

    `far`: it is not a direct child of the asking session, so it reports its end to another session.
    """

    error: str | None = None
    status: SubSessionState = SubSessionState.RUNNING
    turn_id: str = ""
    detached: bool = False
    far: bool = False


class ReportSubSession(Contract):
    """Store and publish the result of a sub-session tool call."""

    turn: TurnRef
    round: int
    tool_call_id: str
    name: str
    sub_session_id: str
    sub_turn_id: str
    status: SubSessionState
    queued: bool = False
    cancel: bool = False
    interrupted: bool = False
    elapsed_seconds: float = 0.0
    include_progress: bool = False
