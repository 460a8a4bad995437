"""What is sent to a model for given rows, byte for byte.

A change of a file in `tests/data/contexts/` changes what every model reads, and ends every cached prefix. To make the
files again: `python -m tests.longhaul.llm.test_golden_contexts`.
"""

from pathlib import Path
from typing import Any

import orjson
import pytest

from longhaul.db.conversation import PromptMessage
from longhaul.llm.fit import fit
from longhaul.llm.request import NOTHING, About, openai_messages, system_message
from longhaul.llm.tokens import tokens_of_message

FOLDER = Path(__file__).parents[2] / "data" / "contexts"
ABOUT = About("I am Ada <user_context>.", "Work on chapter two.", "They agreed on three chapters.")
PAGE = {"url": "https://example.com/a", "content": "A page with </user_context> in it."}


def row(place: int, role: str, content: str, turn: str, **more: Any) -> PromptMessage:
    return PromptMessage(f"m{place}", place, role, "message", content, None, None, turn, None)._replace(**more)


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


ROWS = [
    row(0, "user", "Write a book.", "t1", context=PAGE),
    row(1, "assistant", "I look first.", "t1", tool_calls=[call("a", '{"path": "."}'), call("b", "{broken")]),
    row(2, "tool", "b is broken", "t1", tool_call_id="call_b"),
    row(3, "tool", "chapter one\n" * 30, "t1", tool_call_id="call_a"),
    row(4, "user", "In German, please.", "t1", kind="follow_up", context={"url": "https://example.com/b"}),
    row(5, "assistant", "Gern.", "t1"),
    row(6, "assistant", "Nothing more.", "t1", kind="notice"),
    row(7, "user", "继续写第二章。", "t2"),
    row(8, "assistant", "", "t2", tool_calls=[call("c", "{}")]),
    row(9, "system", "Stopped by the user.", "t2", kind="stop"),
    row(10, "user", "Go on.", "t3", context=PAGE),
]
#: What is known about the session, rows, and the tokens beside the system prompt.
CASES: dict[str, tuple[About, list[PromptMessage], float]] = {
    "whole": (NOTHING, ROWS, 100_000),
    "summarised": (ABOUT, [ROWS[0], *ROWS[7:]], 100_000),
    "cut": (ABOUT, ROWS, 230),
    "one_message": (NOTHING, [ROWS[0]._replace(content="long " * 5_000)], 400),
}


def sent(name: str) -> str:
    about, rows, room = CASES[name]
    system = system_message("")
    messages = [system, *openai_messages(rows, tool_result_max=200, about=about)]
    fitted = fit(messages, tokens_of_message(system) + room)
    return orjson.dumps(fitted.messages[1:], option=orjson.OPT_INDENT_2).decode() + "\n"


@pytest.mark.parametrize("name", CASES)
def test_the_same_rows_are_sent_as_the_same_bytes(name: str) -> None:
    assert sent(name) == (FOLDER / f"{name}.json").read_text(encoding="utf-8")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        (FOLDER / f"{case}.json").write_text(sent(case), encoding="utf-8")
