"""What one server keeps between requests: counts of the calls, and which call gets which fault.

Tests ask here whether an answer that was paid for was asked for again.
"""

import time
from collections import deque
from dataclasses import dataclass, field

from offline_model.script import Fault

_MAX_KEYS = 100_000


class BoundedCounter(dict[str, int]):
    """Counts per key; beyond the limit the oldest keys are forgotten, so a long benchmark costs no memory."""

    def add(self, key: str) -> int:
        """Count one more and return the new count."""
        self[key] = count = self.get(key, 0) + 1
        if len(self) > _MAX_KEYS:
            del self[next(iter(self))]
        return count


@dataclass(slots=True)
class CallRecord:
    """One request; times are Unix seconds, for measuring against the client's clock.

    `microdollars`: what it costs, as far as it was sent. `usage_sent`: the client was told so. `id`: of the response.
    """

    key: str
    started_at: float = field(default_factory=time.time)
    first_chunk_at: float | None = None
    ended_at: float | None = None
    outcome: str = "running"
    microdollars: int = 0
    usage_sent: bool = False
    id: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class Stats:
    """All counters of one server."""

    calls: int = 0
    in_flight: int = 0
    by_key: BoundedCounter = field(default_factory=BoundedCounter)
    completed_by_key: BoundedCounter = field(default_factory=BoundedCounter)
    recent: deque[CallRecord] = field(default_factory=lambda: deque(maxlen=50))

    def begin(self, record: CallRecord) -> None:
        self.calls += 1
        self.in_flight += 1
        self.by_key.add(record.key)
        self.recent.append(record)

    def end(self, record: CallRecord) -> None:
        """Note the end of a call; one that is still `running` was dropped by its client."""
        self.in_flight -= 1
        record.ended_at = time.time()
        if record.outcome == "running":
            record.outcome = "disconnected"
        if record.outcome == "completed":
            self.completed_by_key.add(record.key)


class InstalledFault(Fault):
    """The body of `POST /faults`: a fault for the next `times` requests whose newest user text contains `match`."""

    match: str = ""
    times: int = 1


@dataclass(slots=True)
class FaultBook:
    """Decides which call gets which fault: installed faults come first, then those that the message asks for."""

    installed: list[InstalledFault] = field(default_factory=list)
    tries: BoundedCounter = field(default_factory=BoundedCounter)

    def take(self, text: str, key: str, asked_for: list[Fault], *, has_calls: bool) -> Fault | None:
        """The fault of the call with this key and newest user text, if any; taking it uses it up."""
        for installed in self.installed:
            if installed.match in text and installed.suits(has_calls=has_calls):
                installed.times -= 1
                if installed.times <= 0:
                    self.installed.remove(installed)
                return installed
        due = [fault for fault in asked_for if fault.suits(has_calls=has_calls)]
        spent = self.tries.add(key) - 1 if due else 0
        for fault in due:
            if fault.times is None or spent < fault.times:
                return fault
            spent -= fault.times
        return None
