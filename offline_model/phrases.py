"""The words of the stand-in: short, and honest about what it is."""

from __future__ import annotations

import re

SUFFIX = "(offline stand-in model: no real model is connected)"
_TAGS = re.compile(r"</?user_follow_up\b[^>]*>")


def shortened(text: str, limit: int) -> str:
    """The beginning of a text on one line."""
    line = " ".join(_TAGS.sub(" ", text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def acknowledgement(entries: list[str]) -> str:
    """The first thing said after follow-ups arrived."""
    return "About your follow-up: " + "; ".join(f"“{shortened(e, 60)}”" for e in entries) + "."


def echo(text: str) -> str:
    """The answer to whatever no rule knows."""
    asked = shortened(text, 80)
    return f"You wrote: “{asked}”." if asked else "There is nothing left to answer."


def words(text: str) -> list[str]:
    """A text in the pieces in which it is streamed."""
    return re.findall(r"\s*\S+(?:\s+\Z)?|\s+\Z", text)
