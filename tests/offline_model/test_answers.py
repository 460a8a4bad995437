"""What the offline model answers to phrases and scripts, seen through the real client."""

import json
from typing import Any

import pytest

from offline_model.english import find_sums, split_items, title_of
from testkit.servers import script
from tests.offline_model.conftest import Model, after, user

SUFFIX = "(offline stand-in model: no real model is connected)"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("what is 17 * 23?", [("calculator", {"expression": "17*23"})]),
        ("2*3 and 4*5", [("calculator", {"expression": "2*3"}), ("calculator", {"expression": "4*5"})]),
        ("What time is it?", [("current_time", {})]),
        ("please list files", [("list_files", {"path": "."})]),
        ("read notes.txt, please", [("read_file", {"path": "notes.txt"})]),
        ("write file a/b.txt: 1+1 is two", [("write_file", {"path": "a/b.txt", "content": "1+1 is two"})]),
        ("write x.txt: hi", [("write_file", {"path": "x.txt", "content": "hi"})]),
        ("wait 30 s", [("wait", {"seconds": 30})]),
        ("wait 2 seconds [delay=0]", [("wait", {"seconds": 2})]),
        (
            "delegate: A; B",
            [("run_sub_session", {"prompt": p, "wait_for_result": 60}) for p in "AB"],
        ),
        (
            "delegate: (delegate: x; y [delay=1]); (delegate: z; w)",
            [
                ("run_sub_session", {"prompt": p, "wait_for_result": 60})
                for p in ("delegate: x; y [delay=1]", "delegate: z; w")
            ],
        ),
        ("delegate detached: A", [("run_sub_session", {"prompt": "A", "wait_for_result": 0, "detached": True})]),
        ("rounds 5", [("calculator", {"expression": "1+0"})]),
        ("calc then speak 3: 6*7", [("calculator", {"expression": "6*7"})]),
    ],
)
def test_calls(model: Model, text: str, calls: list[tuple[str, object]]) -> None:
    reply = model.ask(text)
    assert [(n, json.loads(a)) for n, a in reply.calls] == calls
    assert reply.finish == "tool_calls"
    assert reply.fragments >= 2 * len(calls)
    assert len(set(reply.ids)) == len(calls)
    assert model.ask(text).ids == reply.ids


def test_final_answer_after_calls(model: Model) -> None:
    start = [user("2*3 and 4*5")]
    reply = model.ask(after(start, model.ask(start), "6", "20"))
    assert reply.text.startswith("2×3 = 6. 4×5 = 20. (offline stand-in model")
    assert reply.finish == "stop"


def test_without_the_tool_no_call(model: Model) -> None:
    reply = model.ask("2+2", tools=["wait"])
    assert not reply.calls
    assert "no tool calculator" in reply.text


def test_echo_is_honest_and_short(model: Model) -> None:
    reply = model.ask("Tell me a story [ttft=1 delay=0] " + "x" * 500)
    assert SUFFIX in reply.text
    assert "ttft" not in reply.text
    assert len(reply.text) < 200


def test_rounds_to_the_end_even_when_trimmed(model: Model) -> None:
    start = [user("rounds 3")]
    messages = start
    for k in (1, 2, 3):
        reply = model.ask(messages)
        assert reply.calls == [("calculator", json.dumps({"expression": f"{k}+0"}, separators=(",", ":")))]
        messages = after(start, reply, str(k))  # all earlier rounds are trimmed
    assert "3 of 3 rounds" in model.ask(messages).text


def test_delegation_joins_the_answers(model: Model) -> None:
    start = [user("delegate: A; B")]
    done = [json.dumps({"status": "completed", "sub_session_id": s, "response": f"answer {s}"}) for s in "12"]
    text = model.ask(after(start, model.ask(start), *done)).text
    assert "answer 1" in text
    assert "answer 2" in text


def test_slow_delegation_polls_until_completed(model: Model) -> None:
    messages = [user("delegate slowly: A")]
    running = json.dumps({"status": "running", "sub_session_id": "s1"})
    messages = after(messages, model.ask(messages), running)
    for _ in range(3):
        reply = model.ask(messages)
        assert [(n, json.loads(a)) for n, a in reply.calls] == [
            ("get_sub_session_result", {"sub_session_id": "s1", "wait_if_running": 60})
        ]
        messages = after(messages, reply, running)
    messages = after(messages, model.ask(messages), '{"status": "completed", "response": "at last"}')
    assert "at last" in model.ask(messages).text


def test_detached_answers_with_the_handle(model: Model) -> None:
    start = [user("delegate detached: A")]
    reply = model.ask(after(start, model.ask(start), '{"status": "running", "sub_session_id": "s9"}'))
    assert not reply.calls
    assert "s9" in reply.text


def test_follow_up_is_acknowledged_and_done(model: Model) -> None:
    start = [user("2*3")]
    block = user("<user_follow_up>\n1. and what is 4*5? (page: https://x.y/1)\n2. be brief\n</user_follow_up>")
    messages = [*after(start, model.ask(start), "6"), block]
    reply = model.ask(messages)
    assert reply.text.startswith("About your follow-up: “and what is 4*5?")
    assert "be brief" in reply.text
    assert "user_follow_up" not in reply.text
    assert reply.calls == [("calculator", '{"expression":"4*5"}')]
    last = model.ask(after(messages, reply, "20"))
    assert not last.calls
    assert last.text.startswith("2×3 = 6. 4×5 = 20.")


def test_follow_up_after_the_last_answer(model: Model) -> None:
    start = [user("2*3")]
    called = after(start, model.ask(start), "6")
    messages = [*after(called, model.ask(called)), user("<user_follow_up>\n1. thanks\n</user_follow_up>")]
    text = model.ask(messages).text
    assert text.startswith("About your follow-up: “thanks”.")
    assert "2*3" not in text


def test_follow_up_does_not_stop_the_rounds(model: Model) -> None:
    start = [user("rounds 4")]
    messages = [*after(start, model.ask(start), "1"), user("<user_follow_up>\n1. hurry\n</user_follow_up>")]
    reply = model.ask(messages)
    assert "hurry" in reply.text
    assert reply.calls == [("calculator", '{"expression":"2+0"}')]


def test_thinking(model: Model) -> None:
    assert len(model.ask("think: hello").reasoning) > 2
    assert model.ask("hello", reasoning_effort="low").reasoning
    assert model.ask("hello", extra_body={"reasoning": {"max_tokens": 100}}).reasoning
    assert not model.ask("hello").reasoning


def test_sizes(model: Model) -> None:
    spoken = model.ask("speak 200")
    assert spoken.text.split() == [f"w{i}" for i in range(1, 201)]
    assert len(spoken.pieces) == spoken.usage.completion_tokens == 200
    assert len(model.ask(script({"speak": 1_000_000, "unit": "bytes"})).text) == 1_000_000
    start = [user("calc then speak 3: 6*7")]
    assert model.ask(after(start, model.ask(start), "42")).text == "w1 w2 w3"


@pytest.mark.parametrize(
    ("steps", "calls"),
    [
        ([{"call": "no_such_tool", "arguments": '{"a": '}], [("no_such_tool", '{"a": ')]),
        ([{"call": "wait", "arguments": {"seconds": 2}}, {"speak": 3}], [("wait", '{"seconds":2}')]),
        ([{"rounds": 2}], [("calculator", '{"expression":"1+0"}')]),
        (
            [{"delegate": ["A", "B"], "mode": "slowly"}],
            [
                ("run_sub_session", json.dumps({"prompt": prompt, "wait_for_result": 0}, separators=(",", ":")))
                for prompt in "AB"
            ],
        ),
    ],
)
def test_scripts(model: Model, steps: list[dict[str, Any]], calls: list[tuple[str, str]]) -> None:
    assert model.ask(script(*steps)).calls == calls


def test_a_script_says_and_thinks(model: Model) -> None:
    reply = model.ask(script({"think": "Well then."}, {"say": "Good morning."}) + "\n   page: https://x.y/1")
    assert (reply.text, "".join(reply.reasoning)) == (f"Good morning. {SUFFIX}", "Well then.")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"script": [', "it is not JSON"),
        ('{"script": 1}', "it is not a list of steps"),
        (script({"speak": 1}, {"dance": 2}), "number 2 is not a step"),
        (script({"fault": "status:200"}), "number 1 is not a step"),
    ],
)
def test_a_script_that_cannot_be_read(model: Model, text: str, problem: str) -> None:
    assert f"I cannot read this script: {problem}" in model.ask(text).text


def test_title(model: Model) -> None:
    system = {"role": "system", "content": "Write a short title for the conversation."}
    reply = model.ask([system, user("please tell me [fault=status:503] what the weather is like")], tools=[])
    assert reply.text == "Please tell me what the weather"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("What is 12 * (3 + 4)?", "What is 12 * (3 + 4)"),
        ("write notes.txt: hello", "Write notes.txt: hello"),
        ("what is 2*3 and 4 + 5 - 1, please? Thank you", "What is 2*3 and 4 + 5 - 1, please"),
        ("x" * 80, "X" + "x" * 58 + "…"),
        ("?!", "New session"),
    ],
)
def test_titles(text: str, title: str) -> None:
    assert title_of(text) == title


def test_sums() -> None:
    assert find_sums("17 x 23, (1+2)*3; 10/4 (see 7-2) 2^8") == ["17*23", "(1+2)*3", "10/4", "7-2", "2**8"]
    assert not find_sums("on 2026-01-02 call 555-12-34 about https://a.b/1-2 and gpt-4.1")


def test_items() -> None:
    assert split_items("(a; b); (c) and (d); ;e") == ["a; b", "(c) and (d)", "e"]
