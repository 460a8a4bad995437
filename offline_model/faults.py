"""Faults on request: what can go wrong between a worker and a model, played on the wire."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from offline_model.stats import BoundedCounter

KINDS = frozenset(
    {
        "status",
        "cut",
        "badchunk",
        "badargs",
        "unknowntool",
        "silence",
        "empty",
        "length",
        "content_filter",
        "refuse",
    }
)
#: These change a tool call, so they wait for an answer that has one.
CALL_KINDS = frozenset({"badargs", "unknowntool"})


class FaultSyntaxError(ValueError):
    """The text names no fault of this server."""


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """One fault: `number` is a status code or a count of chunks, `seconds` how long a silence lasts."""

    text: str
    kind: str
    number: int = 0
    seconds: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()

    def response_headers(self) -> list[tuple[str, str]]:
        """The headers of a `status` fault; `date+N` becomes an HTTP date N seconds from now."""
        result = []
        for name, value in self.headers:
            if value.startswith("date+"):
                value = formatdate(time.time() + float(value[5:]), usegmt=True)
            result.append((name, value))
        return result


def parse_fault(text: str) -> FaultSpec:
    """Read `status:429:retry-after=2`, `cut:5`, `badchunk:3`, `silence:SECONDS:CHUNKS`, `empty`, …"""
    kind, *args = text.strip().split(":")
    if kind not in KINDS:
        raise FaultSyntaxError(f"unknown fault {kind!r}; known: {', '.join(sorted(KINDS))}")
    try:
        if kind == "status":
            headers = tuple(
                (n.strip().lower(), v) for n, v in (a.split("=", 1) for a in ":".join(args[1:]).split(",") if a)
            )
            status = int(args[0])
            if not 400 <= status <= 599:
                raise FaultSyntaxError(f"status {status} is no error")
            return FaultSpec(text, kind, status, headers=headers)
        if kind == "silence":
            return FaultSpec(text, kind, int(args[1]) if len(args) > 1 else 0, float(args[0]))
        if kind in ("cut", "badchunk"):
            return FaultSpec(text, kind, int(args[0]) if args else 1)
    except (IndexError, ValueError) as error:
        raise FaultSyntaxError(f"cannot read fault {text!r}: {error}") from None
    return FaultSpec(text, kind)


@dataclass(frozen=True, slots=True)
class AskedFault:
    """A fault for the first `times` calls with one key (None: for all), of one round of the turn or of any."""

    fault: FaultSpec
    times: int | None = None
    round: int | None = None


@dataclass(slots=True)
class InstalledFault:
    """A fault for the next `times` requests whose newest user text contains `match`."""

    match: str
    times: int
    fault: FaultSpec

    def as_json(self) -> dict[str, Any]:
        return {"match": self.match, "times": self.times, "fault": self.fault.text}


@dataclass(slots=True)
class FaultBook:
    """Which call gets which fault. Installed ones come first, then those that the message asks for."""

    installed: list[InstalledFault] = field(default_factory=list)
    tries: BoundedCounter = field(default_factory=BoundedCounter)

    def clear(self) -> None:
        """Forget all faults, and how often each call was tried."""
        self.installed.clear()
        self.tries.clear()

    def take(
        self, text: str, key: str, round_number: int, has_calls: bool, asked: tuple[AskedFault, ...]
    ) -> FaultSpec | None:
        """The fault of this call, if any; taking it uses it up."""
        for one in self.installed:
            if one.match in text and (has_calls or one.fault.kind not in CALL_KINDS):
                one.times -= 1
                if one.times <= 0:
                    self.installed.remove(one)
                return one.fault
        due = [a for a in asked if a.round in (None, round_number) and (has_calls or a.fault.kind not in CALL_KINDS)]
        if not due:
            return None
        spent = self.tries.add(key) - 1
        for ask in due:
            if ask.times is None or spent < ask.times:
                return ask.fault
            spent -= ask.times
        return None
