"""A conversation is cut to a window, and stays one that an endpoint accepts: properties over random conversations."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longhaul.db.conversation import PromptMessage
from longhaul.llm import prompts
from longhaul.llm.fit import NEWEST_KEPT, fit
from longhaul.llm.request import About, openai_messages, system_message
from longhaul.llm.tokens import tokens_of_message
from longhaul.tools.registry import defect_of_arguments

Message = dict[str, Any]
SYSTEM = system_message("")
ABOUT = About("of a user", "of a parent", "a summary " * 40)
#: Texts of all kinds, some much larger than the windows below.
TEXTS = st.one_of(
    st.text(max_size=40),
    st.builds(
        lambda piece, times: piece * times,
        st.sampled_from(["word ", "持久的会话", "aGVsbG8gd29ybGQ", '{"a":1},', "<user_context>", "\n", "🎉"]),
        st.integers(0, 3000),
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[PromptMessage]:
    """Rows of turns as they may lie in the database: broken turns, lost results, ids that come again."""
    rows: list[PromptMessage] = []

    def add(role: str, content: str = "", kind: str = "message", **more: Any) -> None:
        row = PromptMessage(str(len(rows)), len(rows), role, kind, content, None, None, turn, None)
        rows.append(row._replace(**more))

    for number in range(draw(st.integers(1, 4))):
        turn = f"t{number}"
        context = draw(st.none() | st.fixed_dictionaries({"url": TEXTS, "content": TEXTS}))
        add("user", draw(TEXTS), context=context)
        for _ in range(draw(st.integers(0, 6))):
            ids = draw(st.lists(st.sampled_from("abcdefgh"), max_size=4, unique=True))
            written = st.sampled_from(["{}", "", "[1]", '{"a": ']) | TEXTS.map(lambda text: orjson.dumps({"x": text}))
            calls = [
                {"id": id_, "type": "function", "function": {"name": "n", "arguments": _string(draw(written))}}
                for id_ in ids
            ]
            add("assistant", draw(TEXTS), tool_calls=calls or None, kind=draw(st.sampled_from(["message", "partial"])))
            for id_ in draw(st.permutations(ids)):
                if draw(st.integers(0, 5)):
                    add("tool", draw(TEXTS), tool_call_id=id_)
            for _ in range(draw(st.integers(0, 2))):
                add("user", draw(TEXTS), kind="follow_up")
        ending = draw(st.sampled_from(["answer", "error", "stop", "none"]))
        if ending == "answer":
            add("assistant", draw(TEXTS))
        elif ending == "error":
            add("assistant", "failed", kind="error")
        elif ending == "stop":
            add("system", "stopped", kind="stop")
    return rows


def _string(written: str | bytes) -> str:
    return written if isinstance(written, str) else written.decode()


def check_valid(messages: list[Message]) -> None:
    """What Chat Completions endpoints ask of messages, all of them together."""
    roles = [message["role"] for message in messages]
    assert roles[0] == "system"
    assert "system" not in roles[1:], "some endpoints refuse a system message in the middle"
    assert roles[1:2] == ["user"], "Anthropic's begin with a user message"
    waiting: list[str] = []
    for before, message in zip([{"role": ""}, *messages], messages, strict=False):
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting, "a result without its call, or not right behind it"
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting, "a call without its result"
        calls = message.get("tool_calls", [])
        assert calls or "tool_calls" not in message, "an empty list is refused"
        assert message["content"] is not None or calls, "a message without content"
        assert (before["role"], message["role"]) != ("assistant", "assistant")
        assert not any(defect_of_arguments(call["function"]["arguments"]) for call in calls)
        waiting = [call["id"] for call in calls]
        assert len(set(waiting)) == len(waiting)
    assert not waiting


@settings(deadline=None, max_examples=100)
@given(conversations(), st.integers(800, 20_000), st.sampled_from([0, 50, 70_000]))
def test_whatever_the_rows_the_messages_are_valid_and_fit(rows: list[PromptMessage], window: int, most: int) -> None:
    messages = [SYSTEM, *openai_messages(rows, tool_result_max=most, about=ABOUT)]
    fitted = fit(messages, window)
    check_valid(messages)
    check_valid(fitted.messages)
    assert fitted.tokens == pytest.approx(sum(map(tokens_of_message, fitted.messages)))
    assert fitted.tokens <= window
    assert fitted.messages[0] == SYSTEM
    if sum(map(tokens_of_message, messages)) <= window:
        assert fitted.messages is messages
    newest = next(message["content"] for message in reversed(messages) if message["role"] == "user")
    assert any(message["content"].startswith(newest[:8]) for message in fitted.messages if message["role"] == "user")
    assert fit(messages, window) == fitted, "the same rows give the same bytes"


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def calling(*ids: str, arguments: str = "{}") -> Message:
    calls = [{"id": id_, "type": "function", "function": {"name": "n", "arguments": arguments}} for id_ in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(id_: str, text: str) -> Message:
    return {"role": "tool", "tool_call_id": id_, "content": text}


def test_the_oldest_go_first_and_no_more_than_needed() -> None:
    messages = [SYSTEM, user("first"), *(user(f"{number:04} " * 10) for number in range(100))]
    whole = sum(map(tokens_of_message, messages))
    fitted = fit(messages, whole - 2 * tokens_of_message(messages[50]) + 0.1)
    assert fitted.messages == [SYSTEM, user("first"), *messages[4:]]
    assert len(fit(messages, whole / 2).messages) < 60


def test_the_newest_are_kept_whole_and_only_then_texts_are_cut() -> None:
    messages = [SYSTEM, user("first"), *(user("some words " * 200) for _ in range(60))]
    least = sum(map(tokens_of_message, [*messages[:2], *messages[-NEWEST_KEPT - 1 :]]))
    assert fit(messages, least + 1).messages == [*messages[:2], *messages[-NEWEST_KEPT - 1 :]]
    cut = fit(messages, least - 500).messages
    assert len(cut) == len(messages[:2]) + NEWEST_KEPT + 1
    assert "which do not fit" in cut[-1]["content"]
    assert cut[1] == user("first")


@pytest.mark.parametrize(
    "text", ["x" * 400_000, "持久的会话引擎" * 30_000, "aGVsbG8g+/" * 20_000, '{"a":[1,2],"b":0},' * 9_000]
)
def test_a_single_message_larger_than_the_window_is_cut_with_a_note(text: str) -> None:
    for messages in ([SYSTEM, user(text)], [SYSTEM, user("first"), calling("a"), result("a", "ok"), user(text)]):
        fitted = fit(messages, 8_000)
        assert 7_000 < fitted.tokens <= 8_000, "as much is shown as fits"
        assert "more characters, which do not fit" in fitted.messages[-1]["content"]
        assert len(fitted.messages) == len(messages)


def test_a_long_result_says_how_to_read_on() -> None:
    forged = "</user_context>" * 5_000
    shown = forged.replace("<", "&lt;")
    fitted = fit([SYSTEM, user("u"), calling("call_7"), result("call_7", shown)], 4_000)
    content = fitted.messages[-1]["content"]
    kept = content.rpartition("\n[cut")[0]
    offset = int(content.rpartition("offset=")[2].rstrip(")]"))
    assert 'read_tool_result(tool_call_id="call_7", offset=' in content
    assert offset <= len(kept.replace("&lt;", "<")) + 3, "no character is skipped"
    assert offset > 0.9 * len(kept.replace("&lt;", "<"))


def test_long_arguments_stay_an_object() -> None:
    arguments = orjson.dumps({"content": "long text " * 5_000}).decode()
    fitted = fit([SYSTEM, user("u"), calling("a", arguments=arguments), result("a", "written")], 3_000)
    assert set(orjson.loads(fitted.messages[2]["tool_calls"][0]["function"]["arguments"])) == {"cut"}


def test_more_calls_than_have_room_leave_the_newest_message() -> None:
    ids = [f"call_{number}" for number in range(2_000)]
    messages = [SYSTEM, user("first"), calling(*ids), *(result(id_, "r") for id_ in ids)]
    assert fit(messages, 2_000).messages == [SYSTEM, user("first" + prompts.CUT_WORK)]
