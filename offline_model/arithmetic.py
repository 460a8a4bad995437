"""Finding sums in a sentence. Working them out is the calculator tool's business."""

from __future__ import annotations

import re

_ATOM = r"\({0,9}\s*-?\d+(?:\.\d+)?\s*\){0,9}"
_SUM = re.compile(rf"{_ATOM}(?:\s*(?:\*\*|[-+*/%^×÷]|x(?=\s*[\d(]))\s*{_ATOM})+")
#: Dates, times, telephone-like numbers, URLs and names with digits are not sums.
_NO_SUM = re.compile(r"https?://\S+|\b\d{4}-\d\d-\d\d\S*|\b\d+(?:-\d+){2,}\b|\b[A-Za-z_]+[-/]?\d[\w./-]*")
_SPELLING = str.maketrans({"×": "*", "÷": "/", "x": "*", "^": "\0"})
MAX_SUMS = 64


def find_sums(text: str) -> list[str]:
    """The expressions of a text in order, without blanks, in the calculator's spelling."""
    cleaned = _NO_SUM.sub(" ", text)
    found = []
    for match in _SUM.finditer(cleaned):
        plain = re.sub(r"\s+", "", match[0]).translate(_SPELLING).replace("\0", "**")
        found.append(_balanced(plain))
    return found[:MAX_SUMS]


def _balanced(expression: str) -> str:
    """Take parentheses of the surrounding sentence off."""
    while expression.count("(") > expression.count(")") and expression.startswith("("):
        expression = expression[1:]
    while expression.count(")") > expression.count("(") and expression.endswith(")"):
        expression = expression[:-1]
    return expression
