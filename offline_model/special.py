"""Requests that are not a person's turn: a title for a new session, a summary of an old conversation."""

from __future__ import annotations

import re

from offline_model.conversation import FOLLOW_UP
from offline_model.directives import strip_directives
from offline_model.phrases import SUFFIX, shortened
from offline_model.request import ChatRequest, text_of
from offline_model.rules import ROUNDS

_TITLE = re.compile(r"\btitle\b", re.IGNORECASE)
_SUMMARISE = re.compile(
    r"\bsummari[sz]e\b.{0,200}\b(conversation|dialogue|messages|everything|so far|chat|history)\b",
    re.IGNORECASE | re.DOTALL,
)
_SPEAKER = re.compile(r"^\s*(?:\[\d+\]\s*)?(?:user|person)\s*:\s*(.+)$", re.IGNORECASE | re.MULTILINE)


def special_answer(request: ChatRequest) -> str | None:
    """The title or summary that is asked for, or None for an ordinary turn."""
    if request.tools:
        return None
    system = "\n".join(text_of(m.get("content")) for m in request.messages if m["role"] in ("system", "developer"))
    users = [text_of(m.get("content")) for m in request.messages if m["role"] == "user"]
    if _TITLE.search(system):
        return _title(users[0] if users else "")
    if _SUMMARISE.search(system) or (users and len(users[-1]) > 500 and _SUMMARISE.search(users[-1][:500])):
        return _summary(users)
    return None


def _title(text: str) -> str:
    block = FOLLOW_UP.search(text)
    plain = re.sub(r"[^\w\s.,:;'+*/=-]", " ", strip_directives(block[1] if block else text))
    title = shortened(" ".join(plain.split()[:6]), 60).rstrip(".,:;- ")
    return title[:1].upper() + title[1:] or "New session"


def _summary(users: list[str]) -> str:
    """Names what was asked, and keeps the number of rounds of a long turn, which it may still need."""
    asked = [said for text in users for said in (_SPEAKER.findall(text) or [text])]
    listed = "; ".join(f"“{shortened(strip_directives(text), 60)}”" for text in asked[:20])
    rounds = [match[0] for text in users for match in ROUNDS.finditer(text)]
    kept = f" Long work under way: {rounds[-1]}." if rounds else ""
    return f"Summary of the conversation so far: the person wrote {listed or 'nothing'}.{kept} {SUFFIX}"
