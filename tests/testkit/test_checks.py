"""The checks see what they are there to see: each is shown something that is wrong in one way."""

from collections import namedtuple
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testkit import checks
from testkit.chaos.load import Posted
from testkit.chaos.verdict import Verdict, judge
from testkit.grammar import check_stream, grammar_problems
from testkit.streamlog import StreamEvent, StreamLog

Message = namedtuple(
    "Message", "sequence role turn_id round client_message_id tool_calls tool_call_id content kind is_error"
)
TurnRecord = namedtuple("TurnRecord", "turn_id status started_at ended_at error")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GOOD: list[dict[str, Any] | None] = [
    {"type": "start", "messageId": "t"},
    {"type": "start-step"},
    {"type": "reasoning-start", "id": "1"},
    {"type": "reasoning-delta", "id": "1", "delta": "hm"},
    {"type": "reasoning-end", "id": "1"},
    {"type": "text-start", "id": "2"},
    {"type": "text-delta", "id": "2", "delta": "wrong"},
    {"type": "text-end", "id": "2"},
    {"type": "data-voided", "data": {"ids": ["2"]}},
    {"type": "text-start", "id": "3"},
    {"type": "text-delta", "id": "3", "delta": "right"},
    {"type": "text-end", "id": "3"},
    {"type": "tool-input-start", "toolCallId": "c", "toolName": "n"},
    {"type": "tool-input-available", "toolCallId": "c", "toolName": "n", "input": {}},
    {"type": "tool-output-available", "toolCallId": "c", "output": "o"},
    {"type": "finish-step"},
    {"type": "finish"},
    None,
]


def log_of(parts: list[dict[str, Any] | None]) -> StreamLog:
    log = StreamLog(200, headers={"content-type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1"})
    log.events = [StreamEvent(f"{n}-0" if part else None, part, 0.0) for n, part in enumerate(parts, 1)]
    return log


def without(kind: str) -> list[dict[str, Any] | None]:
    return [part for part in GOOD if part is None or part["type"] != kind]


def twice(kind: str) -> list[dict[str, Any] | None]:
    return [copy for part in GOOD for copy in ([part, part] if part and part["type"] == kind else [part])]


def test_a_good_stream_passes() -> None:
    log = check_stream(log_of(GOOD))
    assert (log.text(), log.reasoning(), log.turn_id) == ("right", "hm", "t")


@pytest.mark.parametrize(
    "kind",
    [
        "start",
        "start-step",
        "reasoning-end",
        "text-start",
        "text-end",
        "tool-output-available",
        "finish-step",
        "finish",
    ],
)
def test_a_missing_part_is_seen(kind: str) -> None:
    assert list(grammar_problems(log_of(without(kind))))


@pytest.mark.parametrize(
    "kind", ["start", "start-step", "reasoning-start", "text-end", "tool-output-available", "finish"]
)
def test_a_doubled_part_is_seen(kind: str) -> None:
    assert list(grammar_problems(log_of(twice(kind))))


def test_a_stream_that_breaks_off_is_seen() -> None:
    assert list(grammar_problems(log_of(GOOD[:-1])))


def turn_row(turn_id: str, status: object, started_at: object, ended_at: object) -> Any:
    return TurnRecord(turn_id, status, started_at, ended_at, None)


def row(sequence: int | None, role: str, turn: str = "t", **more: Any) -> Any:
    values: dict[str, Any] = {"round": 1, "client_message_id": None, "tool_calls": None, "tool_call_id": None}
    values |= {"content": "", "kind": "message", "is_error": False}
    return Message(sequence=sequence, role=role, turn_id=turn, **(values | more))


CALL = [{"id": "c"}]


def test_good_rows_pass() -> None:
    rows = [
        row(0, "user", client_message_id="a"),
        row(1, "assistant", tool_calls=CALL),
        row(2, "tool", tool_call_id="c"),
        row(3, "assistant"),
    ]
    turns = [turn_row("t", "completed", NOON, NOON + timedelta(seconds=1))]
    assert not list(checks.sequence_problems("s", rows, 4))
    assert not list(checks.answer_problems("s", rows))
    assert not list(checks.tool_problems("s", rows))
    assert not list(checks.turn_problems("s", rows, turns))


def test_gaps_doubles_and_waiting_messages_are_seen() -> None:
    assert list(checks.sequence_problems("s", [row(0, "user"), row(2, "user")], None))
    assert list(checks.sequence_problems("s", [row(0, "user")], 2))
    same = [row(0, "user", client_message_id="a"), row(1, "user", client_message_id="a")]
    assert list(checks.sequence_problems("s", same, None))
    assert list(checks.sequence_problems("s", [row(None, "user", client_message_id="a")], None))


def test_an_answer_must_be_of_the_same_turn_and_behind() -> None:
    assert list(checks.answer_problems("s", [row(0, "assistant"), row(1, "user")]))
    assert list(checks.answer_problems("s", [row(0, "user"), row(1, "assistant", "other")]))


def test_a_tool_call_has_exactly_one_result() -> None:
    assert list(checks.tool_problems("s", [row(0, "assistant", tool_calls=CALL)]))
    assert list(checks.tool_problems("s", [row(0, "tool", tool_call_id="c")]))
    result = row(1, "tool", tool_call_id="c")
    assert list(checks.tool_problems("s", [row(0, "assistant", tool_calls=CALL), result, result]))


SHOWN = [
    row(0, "user", client_message_id="a", content="question"),
    row(1, "reasoning", content="hm"),
    row(2, "assistant", content="right", tool_calls=CALL),
    row(3, "tool", tool_call_id="c", content="o"),
]


def test_a_stream_that_shows_its_rows_passes() -> None:
    assert not list(checks.shown_problems(log_of(GOOD), SHOWN, "completed"))


@pytest.mark.parametrize(
    ("place", "other"),
    [(1, {"content": "aha"}), (2, {"content": "wrong"}), (3, {"content": "p"}), (3, {"is_error": True})],
)
def test_a_stream_that_shows_something_else_than_its_rows_is_seen(place: int, other: dict[str, Any]) -> None:
    rows = [one._replace(**other) if number == place else one for number, one in enumerate(SHOWN)]
    assert list(checks.shown_problems(log_of(GOOD), rows, "completed"))


def test_a_stream_without_an_output_a_follow_up_or_the_outcome_is_seen() -> None:
    assert list(checks.shown_problems(log_of(without("tool-output-available")), SHOWN, "completed"))
    follow_up = row(4, "user", kind="follow_up", client_message_id="b")
    assert list(checks.shown_problems(log_of(GOOD), [*SHOWN, follow_up], "completed"))
    for status in ("cancelled", "failed", "running"):
        assert list(checks.shown_problems(log_of(GOOD), SHOWN, status))
    assert list(checks.shown_problems(log_of([*GOOD[:-2], {"type": "abort"}, *GOOD[-2:]]), SHOWN, "completed"))


def verdict_on(*rows: Any, status: str = "completed", after: str = "") -> Verdict:
    turns = [turn_row("t", status, NOON, NOON + timedelta(seconds=1))]
    found = checks.Stored({"s": rows}, {"s": turns}, [], {"s": len(rows)})
    return judge(found, [Posted("s", "a", "t", after)], [])


def test_a_message_in_a_turn_that_its_sender_was_not_told_is_seen() -> None:
    answered = row(0, "user", client_message_id="a"), row(1, "assistant")
    assert verdict_on(*answered).good
    assert verdict_on(*answered, after="t").wrong
    elsewhere = row(0, "user", "u", client_message_id="a"), row(1, "assistant", "u")
    assert any("is in turn u" in problem for problem in verdict_on(*elsewhere).wrong)
    assert not any("is in turn u" in problem for problem in verdict_on(*elsewhere, status="failed").wrong)


def test_a_lost_message_and_one_without_an_answer_are_seen() -> None:
    assert verdict_on().lost
    assert verdict_on(row(0, "user", client_message_id="a")).lost
    assert verdict_on(row(0, "user", client_message_id="a"), status="cancelled").good


def test_turns_that_overlap_mix_or_do_not_end_are_seen() -> None:
    second = timedelta(seconds=1)
    a, b = (
        turn_row("a", "completed", NOON, NOON + 2 * second),
        turn_row("b", "completed", NOON + second, NOON + 3 * second),
    )
    assert list(checks.turn_problems("s", [], [a, b]))
    assert list(checks.turn_problems("s", [], [turn_row("a", "running", NOON, None)]))
    mixed = [row(0, "user", "a"), row(1, "user", "b"), row(2, "assistant", "a")]
    late = turn_row("b", "completed", NOON + 2 * second, NOON + 3 * second)
    assert list(checks.turn_problems("s", mixed, [a, late]))


def test_a_stream_that_begins_anew_is_judged_from_there() -> None:
    """And one that begins twice without saying so is not well-formed."""
    first: list[dict[str, Any]] = [{"type": "start", "messageId": "t"}, {"type": "start-step"}]
    whole: list[dict[str, Any]] = [*first, {"type": "finish-step"}, {"type": "finish"}]
    void: dict[str, Any] = {"type": "data-voided", "data": {"ids": [], "all": True}}
    header = {"x-vercel-ai-ui-message-stream": "v1"}

    def problems(parts: list[dict[str, Any]]) -> list[str]:
        events = [StreamEvent(None, part, 0.0) for part in parts] + [StreamEvent(None, None, 0.0)]
        return list(grammar_problems(StreamLog(200, headers=header, events=events)))

    assert problems([*first, void, *whole]) == []
    assert "2 × start" in problems([*first, *whole])


def test_what_is_shown_again_counts_after_a_stream_began_anew() -> None:
    """Redis shows the same ids again; what came before them is gone."""
    void: dict[str, Any] = {"type": "data-voided", "data": {"ids": [], "all": True}}
    log = log_of([*GOOD[:12], void, *GOOD])
    assert (log.text(), log.reasoning(), log.turn_id) == ("right", "hm", "t")
    assert not list(checks.shown_problems(log, SHOWN, "completed"))
    log = log_of([*GOOD[:12], void, *GOOD[:2], *GOOD[-3:]])
    assert (log.text(), log.outputs()) == ("", {})
