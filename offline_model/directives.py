"""Directives inside a message: `[ttft=50 delay=5]`, `[fault=status:503 times=1]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from offline_model.faults import AskedFault, FaultSyntaxError, parse_fault

_DIRECTIVE = re.compile(r"\[((?:\s*(?:ttft|delay|fault|times|round)=[^\s\]]+)+)\s*\]", re.IGNORECASE)
_DELEGATE = re.compile(r"\bdelegate\b[^:()]*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Directives:
    """What the directives of a text say."""

    ttft_ms: float | None = None
    delay_ms: float | None = None
    faults: tuple[AskedFault, ...] = ()


def _own(text: str) -> list[re.Match[str]]:
    """The directives for this call; those inside the parentheses of a delegation are the sub-session's."""
    delegate = _DELEGATE.search(text)
    found = list(_DIRECTIVE.finditer(text))
    if delegate is None:
        return found
    begin = delegate.end()
    return [
        m for m in found if m.start() < begin or text.count("(", begin, m.start()) <= text.count(")", begin, m.start())
    ]


def strip_directives(text: str) -> str:
    """The text as a person would have written it."""
    for match in reversed(_own(text)):
        text = text[: match.start()].rstrip(" ") + " " + text[match.end() :].lstrip(" ")
    return text.strip()


def read_directives(text: str) -> Directives:
    """Read the directives of the newest user text; what is no number or no fault is left out."""
    ttft: float | None = None
    delay: float | None = None
    faults: list[AskedFault] = []
    for match in _own(text):
        pairs = dict(item.split("=", 1) for item in match[1].lower().split())
        ttft = _number(pairs.get("ttft"), ttft)
        delay = _number(pairs.get("delay"), delay)
        if "fault" in pairs:
            try:
                fault = parse_fault(pairs["fault"])
            except FaultSyntaxError:
                continue
            faults.append(AskedFault(fault, _integer(pairs.get("times")), _integer(pairs.get("round"))))
    return Directives(ttft, delay, tuple(faults))


def _number(text: str | None, otherwise: float | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d+(\.\d+)?", text) else otherwise


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None
