"""Exceptions and failure types that cross a Temporal boundary; needs only the standard library.

The sandbox imports what workflows import once per run, so this module must stay cheap.
"""

import math
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple


class LonghaulError(Exception):
    """Base of our own errors."""


class NotFoundError(LonghaulError):
    """It does not exist, or it is another user's: the same answer for both."""


class InboxFullError(LonghaulError):
    """As many follow-ups wait as the limit allows."""

    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(f"{waiting} messages wait for the running turn already; the limit is {limit}.")
        self.waiting = waiting
        self.limit = limit


class OpenTurn(NamedTuple):
    """A turn that has not ended by its rows, and since when: it has begun, or its first message waits for it.

    `started_by`: the parent session whose turn may be about to start it; None once it has begun, and for sessions
    without a parent.
    """

    session_id: str
    turn_id: str
    since: datetime
    started_by: str | None = None


class TooManyTurnsError(LonghaulError):
    """As many of a user's turns run as the limit allows."""

    def __init__(self, running: Sequence[OpenTurn], limit: int) -> None:
        first = running[0]
        super().__init__(
            f"{len(running)} of your turns run already, the limit is {limit}; the oldest is turn {first.turn_id} "
            f"of session {first.session_id}. Wait until one has ended, or stop one: POST /v1/sessions/{{id}}/cancel."
        )
        self.running = running
        self.limit = limit


class UsageLimitError(LonghaulError):
    """A user has spent what the limit of a window (`day` or `week`) allows; it ends at `resets_at`."""

    def __init__(self, window: str, resets_at: datetime, now: datetime) -> None:
        when = resets_at.strftime("%A, %d %B %Y, %H:%M UTC")
        super().__init__(
            f"Your usage has reached the limit of this {window}. It resets on {when}; a new turn can start then."
        )
        self.resets_at = resets_at
        self.seconds_left = max(1, math.ceil((resets_at - now).total_seconds()))


class FilesFullError(LonghaulError):
    """A user's files take as much as the limit allows."""

    def __init__(self, used: int, needed: int, limit: int) -> None:
        super().__init__(
            f"Your files take {used} bytes and this one {needed}; together they may take {limit}. Delete some: "
            "DELETE /v1/files/{id}."
        )


class TooManyError(LonghaulError):
    """A user has as many things of a kind as the limit allows."""

    def __init__(self, things: str, limit: int, remedy: str) -> None:
        super().__init__(f"You have {limit} {things}, which is the limit. Delete one: {remedy}.")


class ScheduleRefusedError(LonghaulError):
    """Temporal does not take a schedule; the text names the defect."""


class NotConnectableError(LonghaulError):
    """A person's connection to a provider cannot be made; the text says why, and what to do."""


class MessageIdUsedError(LonghaulError):
    """A message id names another message already."""

    def __init__(self, message_id: str) -> None:
        super().__init__(f"Message {message_id} exists with other content; send a new message under a new id.")


class TurnRunsError(LonghaulError):
    """A turn runs, or is about to, and what was asked for needs an idle session. `turn_id` is empty: about to."""

    def __init__(self, turn_id: str) -> None:
        super().__init__("A turn of this session runs. Try again when it has ended, or stop it: POST …/cancel.")
        self.turn_id = turn_id


class SessionBusyError(LonghaulError):
    """A turn runs, or is about to, and the message was to be rejected then."""

    def __init__(self, session_id: str, turn_id: str) -> None:
        super().__init__(
            f"Turn {turn_id} of this session runs, and `on_busy` says to reject the message then. Nothing was changed."
        )
        self.session_id = session_id
        self.turn_id = turn_id


class AnsweredError(LonghaulError):
    """A call waits for no answer any more: it has one, its time is over, or its turn has ended or is being stopped."""

    def __init__(self, approval_id: str, status: str) -> None:
        super().__init__(f"Nothing was changed: {approval_id} waits for no answer any more, it is {status}.")
        self.status = status


class CallEndedError(LonghaulError):
    """A tool call that tool workers run has ended: its result is stored, or its turn has ended or is being stopped."""

    def __init__(self) -> None:
        super().__init__("This tool call has ended; nothing was changed.")


class TokenReplacedError(LonghaulError):
    """A call token counts no more, because the call was begun again."""

    def __init__(self) -> None:
        super().__init__("Another attempt has this tool call now; nothing was changed.")


class ResultGivenError(LonghaulError):
    """A tool call has its result already."""

    def __init__(self) -> None:
        super().__init__("This tool call has its result already; nothing was changed.")


class NotRetriedError(LonghaulError):
    """Only a session's newest turn can be retried, and only if it failed."""

    def __init__(self, turn_id: str, why: str) -> None:
        super().__init__(f"Turn {turn_id} cannot be retried: {why}. Send a message instead.")


class UnavailableError(LonghaulError):
    """A part that is needed cannot be reached now; trying again later is right."""

    def __init__(self, part: str, retry_after: int = 5) -> None:
        super().__init__(f"{part} cannot be reached right now; nothing was lost, try again in {retry_after} s.")
        self.part = part
        self.retry_after = retry_after


class SetupError(LonghaulError):
    """This installation lacks something that a person has to provide; the text says what it is and how to do it."""


class TurnEndedError(LonghaulError):
    """A turn has ended, so an attempt that was taken for dead and woke up stores nothing more in it."""

    def __init__(self, turn_id: str) -> None:
        super().__init__(f"Turn {turn_id} has ended; this attempt is too late.")


class StreamBrokenError(LonghaulError):
    """A model's stream ended before its end."""


class ContextTooLongError(LonghaulError):
    """A model's endpoint refused a request because it is longer than the model's window.

    `window` and `counted`: the tokens of the window and of the request, where the endpoint names them.
    """

    def __init__(self, window: int | None = None, counted: int | None = None) -> None:
        super().__init__(
            "The model's window is too small even for the newest message. Set LONGHAUL_CONTEXT_WINDOW to the tokens "
            "that the model takes, or use a model with a larger window."
        )
        self.window = window
        self.counted = counted


def new_reference() -> str:
    """An id that connects a generic text for people with the log entry that holds the details."""
    return secrets.token_hex(4)


# Types of `ApplicationError`, as the Web UI shows them.
MODEL_FAILED = "ModelFailed"
BUDGET_REACHED = "BudgetReached"
BUDGET_RESERVED = "BudgetReserved"
USAGE_LIMIT = "UsageLimitReached"
MODEL_RETRY = "ModelTryFailed"
TOOL_RETRY = "ToolTryFailed"
STORAGE_UNAVAILABLE = "StorageUnavailable"
TURN_ENDED = "TurnEnded"
HANDED_OVER = "HandedOver"
WORKER_DIED = "WorkerDied"
TURN_FAILED = "TurnFailed"
TURN_RUNS = "TurnRuns"
SCHEDULE_UNKNOWN = "ScheduleUnknown"
