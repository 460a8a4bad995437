"""English: the phrases that people type, translated to the script language, and the words of the answers."""

import re
from collections.abc import Callable
from itertools import accumulate

from pydantic import ValidationError

from offline_model.script import AnyStep, Call, Delegate, Fault, Pace, Recall, Rounds, Script, Speak, Think, json_script

SUFFIX = "(offline stand-in model: no real model is connected)"

_I = re.IGNORECASE
_NOTE = re.compile(r"\[((?:\s*(?:ttft|delay|fault|times|round)=[^\s\]]+)+)\s*\]", _I)
_THINK = re.compile(r"^\s*think:\s*", _I)
_DELEGATE = re.compile(r"\bdelegate(?:\s+(slowly|detached))?:\s*(.+)", _I | re.DOTALL)
_WRITE = re.compile(r"\bwrite\s+(?:file\s+([^\s:]+)|([^\s:]+\.\w+))\s*:\s?(.*)", _I | re.DOTALL)
_NUMBER = r"\({0,9}\s*-?\d+(?:\.\d+)?\s*\){0,9}"
_SUM = re.compile(rf"{_NUMBER}(?:\s*(?:\*\*|[-+*/%^×÷]|x(?=\s*[\d(]))\s*{_NUMBER})+")
#: Dates, times, telephone-like numbers, URLs and names with digits are not sums.
_NO_SUM = re.compile(r"https?://\S+|\b\d{4}-\d\d-\d\d\S*|\b\d+(?:-\d+){2,}\b|\b[A-Za-z_]+[-/]?\d[\w./-]*")
_SPELLING = str.maketrans({"×": "*", "÷": "/", "x": "*", "^": "**"})
_MAX_SUMS = 64


def _call(tool: str, **arguments: str | float) -> Call:
    return Call(call=tool, arguments=arguments, optional=True)


def _wait(match: re.Match[str]) -> Call:
    unit = match[2].lower()
    factor = 0.001 if unit.startswith(("ms", "milli")) else 60.0 if unit.startswith("m") else 1.0
    return _call("wait", seconds=round(float(match[1]) * factor, 3))


#: Phrases that can stand together in one text; sums are looked for in the rest of it.
_PHRASES: list[tuple[re.Pattern[str], Callable[[re.Match[str]], AnyStep]]] = [
    (re.compile(r"\bspeak\s+(\d{1,8})\b", _I), lambda match: Speak(speak=int(match[1]))),
    (re.compile(r"\bwhat was my first message\b", _I), lambda _: Recall()),
    (re.compile(r"\brounds\s+(\d{1,9})\b", _I), lambda match: Rounds(rounds=int(match[1]))),
    (re.compile(r"\blist\s+(?:the\s+|all\s+|my\s+)*files\b", _I), lambda _: _call("list_files", path=".")),
    (
        re.compile(r"\bread\s+(?:the\s+)?(?:file\s+(\S+)|(\S+\.\w+))", _I),
        lambda match: _call("read_file", path=(match[1] or match[2]).rstrip("?!,;.\"'").lstrip("\"'")),
    ),
    (
        re.compile(r"\bwait\s+(?:for\s+)?(\d+(?:\.\d+)?)\s*(ms|millisec\w*|s|secs?|seconds?|m|mins?|minutes?)\b", _I),
        _wait,
    ),
    (re.compile(r"\b(?:what time|date|what(?:'s| is) the time)\b", _I), lambda _: _call("current_time")),
]
#: They are looked for at the beginning of a text only: searching them takes quadratic time.
_SEARCHED = 4_000


def read_script(text: str, *, follow_up: bool = False) -> Script:
    """What a message asks for: it is a script itself, or a text in English."""
    if (steps := json_script(text)) is not None:
        return Script(text, steps, follow_up)
    text, steps = _without_notes(text)
    if prefix := _THINK.match(text):
        steps.append(Think(think=thoughts(text)))
    asked = text[prefix.end() :] if prefix else text
    if match := _DELEGATE.search(asked):
        mode = (match[1] or "wait").lower()
        steps.append(Delegate.model_validate({"delegate": split_items(match[2]), "mode": mode}))
    elif match := _WRITE.search(asked):
        steps.append(_call("write_file", path=match[1] or match[2], content=match[3]))
    else:
        rest = asked[:_SEARCHED]
        for phrase, step in _PHRASES:
            steps += [step(match) for match in phrase.finditer(rest)]
            rest = phrase.sub(" ", rest)
        steps += [_call("calculator", expression=expression) for expression in find_sums(rest)]
    return Script(text, steps, follow_up)


def _without_notes(text: str) -> tuple[str, list[AnyStep]]:
    """Take the notes in brackets out of a text: `[ttft=50 delay=5]`, `[fault=status:503 times=1]`.

    Notes inside the parentheses of a delegation belong to the sub-session. A note that cannot be read stays.
    """
    steps: list[AnyStep] = []
    delegated = _DELEGATE.search(text)
    items = delegated.start(2) if delegated else len(text)
    for match in reversed(list(_NOTE.finditer(text))):
        if text.count("(", items, match.start()) > text.count(")", items, match.start()):
            continue
        note = dict(pair.split("=", 1) for pair in match[1].lower().split())
        kinds = [kind for kind in (Pace, Fault) if kind.model_fields.keys() & note.keys()]
        try:
            steps[:0] = [kind.model_validate({k: note[k] for k in kind.model_fields if k in note}) for kind in kinds]
        except ValidationError:
            continue
        text = text[: match.start()].rstrip(" ") + " " + text[match.end() :].lstrip(" ")
    return text.strip(), steps


def split_items(text: str) -> list[str]:
    """Split at the semicolons outside parentheses, and take one outer pair off each item."""
    cuts = [place for place, depth in enumerate(_depths(text)) if text[place] == ";" and depth <= 0]
    items = [text[i + 1 : j].strip() for i, j in zip([-1, *cuts], [*cuts, len(text)], strict=True)]
    wrapped = [item[:1] == "(" and item[-1:] == ")" and 0 not in _depths(item)[:-1] for item in items]
    plain = [item[1:-1].strip() if has_pair else item for item, has_pair in zip(items, wrapped, strict=True)]
    return [item for item in plain if item]


def _depths(text: str) -> list[int]:
    """How many parentheses are open behind each character."""
    return list(accumulate((char == "(") - (char == ")") for char in text))


def find_sums(text: str) -> list[str]:
    """The sums of a text in order, without blanks, in the calculator's spelling."""
    sums = _SUM.findall(_NO_SUM.sub(" ", text))[:_MAX_SUMS]
    return [_balanced(re.sub(r"\s+", "", each).translate(_SPELLING)) for each in sums]


def _balanced(expression: str) -> str:
    """Take parentheses of the surrounding sentence off."""
    while expression.count("(") > expression.count(")") and expression.startswith("("):
        expression = expression[1:]
    while expression.count(")") > expression.count("(") and expression.endswith(")"):
        expression = expression[:-1]
    return expression


def title_of(message: str) -> str:
    """The first six words of a message; a sum counts as one word."""
    plain = re.sub(r"[^\w\s.,:;'()+*/=-]", " ", read_script(message).text[:_SEARCHED])
    title = " ".join(re.findall(rf"{_SUM.pattern}(?<!\s)\S*|\S+", plain)[:6])
    title = shortened(title, 60).rstrip(".,:;- ")
    return title[:1].upper() + title[1:] or "New session"


def summary_of(transcript: str) -> str:
    """What was said in a conversation, at most the beginnings of ten messages."""
    said = [line for line in transcript.splitlines() if line.startswith("[")]
    shown = "; ".join(shortened(line, 60) for line in said[-10:])
    return f"{len(said)} messages were exchanged, the newest of them: {shown}. {SUFFIX}"


def shortened(text: str, limit: int) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def words(text: str) -> list[str]:
    """A text in the pieces in which it is streamed."""
    return re.findall(r"\s*\S+(?:\s+\Z)?|\s+\Z", text)


def thoughts(text: str) -> str:
    """What is sent as reasoning about a text."""
    return f"The person asks: {shortened(text, 60)} I answer now."
