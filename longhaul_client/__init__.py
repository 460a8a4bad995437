"""A client of Longhaul's HTTP API for Python programs, asynchronous and synchronous.

    with Longhaul("http://127.0.0.1:8700") as longhaul:
        session = longhaul.sessions.create()
        print(session.ask("What is 17 * 23?").text)

Connections may break: what is sent carries an id, so that the server counts it once, and streams resume behind the last
event that was seen. It imports nothing of the server.
"""

from longhaul_client.asynchronous import AsyncLonghaul, AsyncSession
from longhaul_client.errors import ConnectionLostError, LonghaulClientError, ProblemError, StillRunningError
from longhaul_client.events import (
    Aborted,
    Data,
    Event,
    Failed,
    Finished,
    Joined,
    Other,
    ReasoningDelta,
    Reconnecting,
    Started,
    TextDelta,
    ToolCalled,
    ToolFailed,
    ToolReturned,
    Transcript,
    Voided,
)
from longhaul_client.models import Answer, Cancelled, Message, Progress, Sent, SessionInfo, SessionPage, Turn, Usage
from longhaul_client.schedules import Schedule, ScheduleRun
from longhaul_client.synchronous import Longhaul, Session
from longhaul_client.webhooks import HappenedEvent, HappenedEvents, Webhook, WebhookAttempt

__all__ = [
    "Aborted",
    "Answer",
    "AsyncLonghaul",
    "AsyncSession",
    "Cancelled",
    "ConnectionLostError",
    "Data",
    "Event",
    "Failed",
    "Finished",
    "HappenedEvent",
    "HappenedEvents",
    "Joined",
    "Longhaul",
    "LonghaulClientError",
    "Message",
    "Other",
    "ProblemError",
    "Progress",
    "ReasoningDelta",
    "Reconnecting",
    "Schedule",
    "ScheduleRun",
    "Sent",
    "Session",
    "SessionInfo",
    "SessionPage",
    "Started",
    "StillRunningError",
    "TextDelta",
    "ToolCalled",
    "ToolFailed",
    "ToolReturned",
    "Transcript",
    "Turn",
    "Usage",
    "Voided",
    "Webhook",
    "WebhookAttempt",
]
