"""Settings of turns, sub-sessions and streams."""

from typing import Annotated

from pydantic import BaseModel, Field

from longhaul.settings.values import Count, Seconds


class Turns(BaseModel):
    """Turns"""

    max_rounds: Annotated[int, Field(ge=1)] = Field(
        200, description="Model calls of one turn before it ends with a notice."
    )
    max_pending_messages: Count = Field(10, description="Follow-ups that may wait in a turn's inbox; more: 429.")
    follow_up_rate_limit: Count = Field(30, description="Follow-ups per user per 60 s over all sessions; more: 429.")
    max_running_turns: Count = Field(
        20, description="Turns per user at once, sub-sessions not counted; a new one: 429. Without auth 0, unless set."
    )
    new_turn_rate_limit: Count = Field(
        60, description="New turns per user per 60 s over all sessions; more: 429. Without auth 0, unless set."
    )
    continue_as_new_events: Count = Field(
        8_000, description="History events at which a turn continues as new. 0: when the server suggests it."
    )
    heartbeat_timeout: Seconds = Field(
        15.0, description="Seconds after which a silent worker's activity goes to another."
    )
    heartbeat_interval: Seconds = Field(
        5.0, description="Seconds between heartbeats; also how fast Stop reaches a running call while Redis is away."
    )
    tool_timeout: Seconds = Field(300.0, description="Seconds one tool call may take.")
    tool_tries: Annotated[int, Field(ge=1)] = Field(
        3, description="Starts of one tool call whose worker dies under it."
    )
    storage_window: Seconds = Field(3600.0, description="Seconds a turn waits for an unreachable database.")
    redeliver_after: Annotated[float, Field(ge=0)] = Field(
        60.0, description="Seconds a message may wait while no turn runs until it is delivered again. 0: never."
    )
    answer_timeout: Annotated[float, Field(ge=0)] = Field(
        86_400.0,
        description="Seconds that a call waits for a person or a client; then the model is told that nobody answered. "
        "0: for ever.",
    )
    wait_max_seconds: Annotated[float, Field(gt=0, le=300)] = Field(
        300.0, description="Longest the `wait` tool sleeps at a time."
    )
    max_schedules: Count = Field(20, description="Schedules that a user may have; more: 409. 0: no limit.")
    schedule_min_seconds: Annotated[int, Field(ge=1)] = Field(
        60, description="Shortest interval of a schedule, in seconds."
    )


class SubSessions(BaseModel):
    """Sub-sessions"""

    max_tool_wait: Seconds = Field(300.0, description="Longest a tool call waits for a sub-session.")
    max_depth: Count = Field(3, description="Levels of sub-sessions below a session.")
    max_children: Count = Field(8, description="Running sub-sessions of one session.")
    max_running_sub_sessions: Count = Field(
        32, description="Running sub-sessions below one root session, detached ones included."
    )


class Streams(BaseModel):
    """Streams"""

    stream_flush_ms: Count = Field(
        15,
        description="Milliseconds over which deltas are gathered into one stream event; a busy worker takes up to "
        "four times as long.",
    )
    stream_ttl: Seconds = Field(3600.0, description="Seconds a turn's stream stays in Redis after its last event.")
    stream_max_bytes: Count = Field(
        33_554_432,
        description="Bytes a turn's stream may take in Redis; beyond it, readers get stored rows. 0: no limit.",
    )
    session_copy_ttl: Count = Field(
        43_200, description="Seconds a session's copy stays in Redis, for when the database is away. 0: no copies."
    )
    redis_timeout: Seconds = Field(1.0, description="Seconds after which Redis counts as unreachable.")
