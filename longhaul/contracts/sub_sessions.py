"""What passes between a turn and its sub-sessions."""

from longhaul.contracts.base import Contract, SubSessionState, TurnRef
from longhaul.contracts.turn import Scope


class PrepareSubSession(Contract):
    """Make (or find) the sub-session of a `run_sub_session` call and keep its prompt for it."""

    turn: TurnRef
    round: int
    tool_call_id: str
    arguments: str
    scope: Scope


class PreparedSubSession(Contract):
    """What the workflow starts the child with; or why there is none (`error`, words for the model)."""

    error: str | None = None
    sub_session_id: str = ""
    message_id: str = ""
    task: str = ""
    scope: Scope = Scope()
    published: bool = True


class LookAtSubSession(Contract):
    """Ask for the live status of a sub-session below this session; `cancel` stops it and all below it first.

    `message_id` asks for the turn that takes this message, rather than for the newest one.
    """

    turn: TurnRef
    scope: Scope
    sub_session_id: str
    cancel: bool = False
    message_id: str = ""


class SubSessionSeen(Contract):
    """What was seen; `error` when there is no such sub-session (or it is somebody else's).

    `far`: it is not a child of the asking session but lies deeper, so its end is told to another one.
    """

    error: str | None = None
    status: SubSessionState = SubSessionState.RUNNING
    turn_id: str = ""
    was_running: bool = False
    task: str = ""
    detached: bool = False
    far: bool = False


class SubSessionEnded(Contract):
    """Signal of a sub-session to its parent's turn: it has come to its end."""

    sub_session_id: str
    turn_id: str
    status: SubSessionState


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
    was_cancelled: bool = False
    interrupted: bool = False
    elapsed_seconds: float = 0.0
    include_progress: bool = False
