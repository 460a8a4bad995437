"""Counting calls: tests ask here whether an answer that was paid for was asked for again."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_KEYS = 100_000


class BoundedCounter:
    """Counts per key; beyond the limit the oldest keys are forgotten, so a long benchmark costs no memory."""

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self.limit = limit
        self.counts: dict[str, int] = {}

    def add(self, key: str) -> int:
        """Count one more and return the new count."""
        count = self.counts.get(key, 0) + 1
        self.counts[key] = count
        if len(self.counts) > self.limit:
            del self.counts[next(iter(self.counts))]
        return count

    def clear(self) -> None:
        self.counts.clear()


@dataclass(slots=True)
class CallRecord:
    """The summary of one request; times are Unix seconds, for measuring against the client's clock."""

    key: str
    model: str
    stream: bool
    messages: int
    last_user: str
    started_at: float = field(default_factory=time.time)
    first_chunk_at: float | None = None
    ended_at: float | None = None
    fault: str | None = None
    tool_calls: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    outcome: str = "running"


class Stats:
    """All counters of one server."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.by_key = BoundedCounter()
        self.completed_by_key = BoundedCounter()
        self.reset()

    def reset(self) -> None:
        """Start counting anew; calls in flight stay in flight."""
        self.calls = 0
        self.completed = 0
        self.by_key.clear()
        self.completed_by_key.clear()
        self.recent: deque[CallRecord] = deque(maxlen=50)

    def begin(self, record: CallRecord) -> None:
        self.calls += 1
        self.in_flight += 1
        if record.key:
            self.by_key.add(record.key)
        self.recent.append(record)

    def end(self, record: CallRecord) -> None:
        """A call left `running` here was dropped by its client."""
        self.in_flight -= 1
        record.ended_at = time.time()
        if record.outcome == "running":
            record.outcome = "disconnected"
        if record.outcome == "completed":
            self.completed += 1
            if record.key:
                self.completed_by_key.add(record.key)

    def as_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "completed": self.completed,
            "in_flight": self.in_flight,
            "by_key": self.by_key.counts,
            "completed_by_key": self.completed_by_key.counts,
            "recent": [asdict(record) for record in self.recent],
        }
