"""Arguments and results of the runs of schedules."""

from datetime import datetime

from longhaul.contracts.turn import Contract, TurnStatus


class ScheduledRun(Contract):
    """One run of a schedule: deliver its message, and wait for the end of the turn that takes it."""

    schedule_id: str


class DeliverScheduled(Contract):
    """Deliver a schedule's message. `run`: the workflow id of the run, from which all of the run's ids follow."""

    schedule_id: str
    run: str
    scheduled_at: datetime


class DeliveredScheduled(Contract):
    """The turn that takes the message. Without one, the message was refused, or there is no such schedule any more."""

    session_id: str = ""
    turn_id: str = ""
    message_id: str = ""


class AwaitScheduled(Contract):
    """Wait for the turn that takes a message."""

    session_id: str
    message_id: str


class ScheduledRunEnded(Contract):
    """How the turn of a run ended; None: there was none."""

    status: TurnStatus | None = None
