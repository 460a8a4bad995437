"""Every model that crosses a Temporal boundary: one in, one out, for each workflow, activity, signal and query.

They carry ids, statuses and counts, never text of a conversation: that lives in the database. Fields are only ever
added, with defaults, so that a history recorded by an older version still decodes.
"""

from longhaul.contracts.activities import (
    CallModel,
    ClosedTurn,
    CloseTurn,
    ModelAnswer,
    OpenedTurn,
    OpenTurn,
    RunTool,
    StoreToolResult,
    TakeInbox,
    TakenInbox,
    ToolCall,
    ToolOutcome,
)
from longhaul.contracts.base import SUB_STATES, Contract, Empty, SubSessionState, ToolStatus, TurnRef, TurnStatus, Usage
from longhaul.contracts.sub_sessions import (
    LookAtSubSession,
    PreparedSubSession,
    PrepareSubSession,
    ReportSubSession,
    SubSessionEnded,
    SubSessionSeen,
)
from longhaul.contracts.turn import (
    Budget,
    FollowUp,
    Progress,
    Scope,
    SubSessionRecord,
    ToolRecord,
    TurnInput,
    TurnLimits,
    TurnResult,
    TurnState,
)

__all__ = [
    "SUB_STATES",
    "Budget",
    "CallModel",
    "CloseTurn",
    "ClosedTurn",
    "Contract",
    "Empty",
    "FollowUp",
    "LookAtSubSession",
    "ModelAnswer",
    "OpenTurn",
    "OpenedTurn",
    "PrepareSubSession",
    "PreparedSubSession",
    "Progress",
    "ReportSubSession",
    "RunTool",
    "Scope",
    "StoreToolResult",
    "SubSessionEnded",
    "SubSessionRecord",
    "SubSessionSeen",
    "SubSessionState",
    "TakeInbox",
    "TakenInbox",
    "ToolCall",
    "ToolOutcome",
    "ToolRecord",
    "ToolStatus",
    "TurnInput",
    "TurnLimits",
    "TurnRef",
    "TurnResult",
    "TurnState",
    "TurnStatus",
    "Usage",
]
