"""Counts of calls: tests ask here whether an answer that was paid for was asked for again."""

import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any


class BoundedCounter(dict[str, int]):
    """Counts per key; beyond the limit the oldest keys are forgotten, so a long benchmark costs no memory."""

    limit = 100_000

    def add(self, key: str) -> int:
        """Count one more and return the new count."""
        self[key] = self.get(key, 0) + 1
        if len(self) > self.limit:
            del self[next(iter(self))]
        return self.get(key, 0)


@dataclass(slots=True)
class CallRecord:
    """One request; times are Unix seconds, for measuring against the client's clock."""

    key: str
    model: str
    started_at: float = field(default_factory=time.time)
    first_chunk_at: float | None = None
    ended_at: float | None = None
    fault: str | None = None
    outcome: str = "running"


class Stats:
    """All counters of one server."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Start counting anew; calls in flight stay in flight."""
        self.calls = 0
        self.completed = 0
        self.by_key = BoundedCounter()
        self.completed_by_key = BoundedCounter()
        self.recent: deque[CallRecord] = deque(maxlen=50)

    def begin(self, record: CallRecord) -> None:
        self.calls += 1
        self.in_flight += 1
        if record.key:
            self.by_key.add(record.key)
        self.recent.append(record)

    def end(self, record: CallRecord) -> None:
        """Note the end of a call; one that is still `running` was dropped by its client."""
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
            "by_key": self.by_key,
            "completed_by_key": self.completed_by_key,
            "recent": [asdict(record) for record in self.recent],
        }
