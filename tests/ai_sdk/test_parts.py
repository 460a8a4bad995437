"""Any turn, with any retries and follow-ups: its stream and its rows make the same messages, in the SDK and here."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from longhaul.contracts import PLAN_TOOL, SHARE_TOOL, TurnStatus
from longhaul.db.messages import StoredMessage
from longhaul.db.turns import TurnRecord
from longhaul.streams.blocks import AT
from longhaul.streams.chat_parts import WRITTEN_ANEW, ChatParts, TakeBack, merged
from longhaul.streams.ending import Ending
from longhaul.streams.events import (
    Part,
    data_part,
    plan_part,
    shared_file_part,
    start_part,
    tool_output_part,
    usage_part,
)
from longhaul.streams.step_writer import StepWriter
from longhaul.streams.ui_messages import UiMessageBuilder, ui_messages
from tests.ai_sdk.conftest import command

TURN = "t"
TOOK_MS = 7
NOW = datetime(2026, 11, 21, tzinfo=UTC)
texts = st.text("abc ", min_size=1, max_size=12)
cuts = st.lists(st.integers(0, 24), max_size=2)  # attempts that broke off after so many characters


@dataclass(frozen=True)
class Round:
    """A round: its answer, where attempts before it broke off, and the follow-ups taken behind it."""

    reasoning: str
    text: str
    calls: int
    cuts: list[int] = field(default_factory=list)
    other_text: str = ""  # what those attempts wrote instead
    follow_ups: int = 0
    model: str | None = None  # rows of older versions do not name one
    second: tuple[str, str] = ("", "")  # reasoning and text behind the text


@dataclass
class Turn:
    """A turn as its stream and as its rows."""

    parts: list[Part]
    rows: list[StoredMessage]
    record: TurnRecord
    several: bool = False


def rounds(other: st.SearchStrategy[str]) -> st.SearchStrategy[Round]:
    return st.builds(
        Round,
        reasoning=st.one_of(st.just(""), texts),
        text=texts,
        calls=st.integers(0, 3),
        cuts=cuts,
        other_text=other,
        follow_ups=st.integers(0, 2),
        model=st.sampled_from([None, "m1", "m2"]),
        second=st.one_of(st.just(("", "")), st.tuples(texts, st.one_of(st.just(""), texts))),
    )


OUTPUTS = {
    "calculator": "391",
    PLAN_TOOL: '{"plan": [{"step": "%d", "status": "pending"}]}',
    SHARE_TOOL: '{"file_id": "f%d", "name": "a.png", "media_type": "image/png", "size": 3}',
}


def row(sequence: int, role: str, content: str, round_: int, **more: Any) -> StoredMessage:
    same: dict[str, Any] = dict.fromkeys(StoredMessage._fields)
    base = {"id": str(sequence), "session_id": "s", "sequence": sequence, "role": role, "kind": "message"}
    return StoredMessage(
        **{**same, **base, "content": content, "turn_id": TURN, "round": round_, "is_error": False, **more}
    )


def write(
    step: StepWriter, reasoning: str, text: str, second: tuple[str, str] = ("", ""), took_ms: int = TOOK_MS
) -> None:
    for kind, whole in (("reasoning", reasoning), ("text", text), ("reasoning", second[0]), ("text", second[1])):
        for at in range(0, len(whole), 3):
            step.show([(kind, whole[at : at + 3], "")])
        if kind == "reasoning" and whole:
            step.show([("reasoned", "", str(took_ms))])


def turn_of(plan: list[Round], status: TurnStatus) -> Turn:
    parts: list[Part] = [start_part(TURN)]
    rows = [row(0, "user", "hello", 0, client_message_id="m")]

    def add(role: str, content: str, number: int, **more: Any) -> None:
        rows.append(row(len(rows), role, content, number, **more))

    for number, one in enumerate(plan, start=1):
        for attempt, cut in enumerate(one.cuts, start=1):
            step = StepWriter(parts.append, number, attempt)
            step.begin()
            text = one.other_text or one.text
            write(step, one.reasoning[:cut], text[: max(0, cut - len(one.reasoning))], took_ms=attempt)
            step.take_back()
        step = StepWriter(parts.append, number, len(one.cuts) + 1)
        step.begin()
        write(step, one.reasoning, one.text, one.second)
        calls: list[dict[str, Any]] = [
            {"id": f"c{number}.{n}", "type": "function", "function": {"name": name, "arguments": '{"a":1}'}}
            for n, name in zip(range(one.calls), OUTPUTS, strict=False)
        ]
        step.complete(calls)
        parts.append(usage_part({"calls": 1}, one.model))
        if one.reasoning:
            add("reasoning", one.reasoning, number, duration_ms=TOOK_MS)
        if one.second[0]:
            add("reasoning", one.second[0], number, duration_ms=TOOK_MS, context={AT: len(one.text)})
        add(
            "assistant", one.text + one.second[1], number, tool_calls=calls or None, usage={"calls": 1}, model=one.model
        )
        for call in calls:
            name, is_error = call["function"]["name"], number % 2 == 0
            output = OUTPUTS[name] % number if "%" in OUTPUTS[name] else OUTPUTS[name]
            part = {PLAN_TOOL: plan_part, SHARE_TOOL: shared_file_part}.get(name)
            if not is_error and part is not None and (shown := part(output)):
                parts.append(shown)
            parts.append(tool_output_part(call["id"], output, is_error=is_error))
            add("tool", output, number, tool_call_id=call["id"], tool_name=name, is_error=is_error)
        for n in range(one.follow_ups):
            message = f"f{number}.{n}"
            parts.append(data_part("follow-up", {"message_id": message, "round": number}))
            add("user", "and?", number, kind="follow_up", client_message_id=message)
        if calls:
            parts.append({"type": "finish-step"})
    ending = Ending(status, len(plan), "It broke." if status is TurnStatus.FAILED else None)
    parts += [*ending.parts([]), *([ending.outcome] if ending.outcome else []), {"type": "finish"}]
    record = TurnRecord(TURN, "s", "u", status, "m", "fast", "standard", "m", ending.error, None, NOW, NOW, 1)
    return Turn(parts, rows, record, several=any(one.follow_ups for one in plan))


def turns(other: st.SearchStrategy[str]) -> st.SearchStrategy[Turn]:
    ends = st.sampled_from([TurnStatus.COMPLETED, TurnStatus.CANCELLED, TurnStatus.FAILED])
    return st.builds(turn_of, st.lists(rounds(other), min_size=1, max_size=3), ends)


def expected(turn: Turn) -> list[dict[str, Any]]:
    found = ui_messages(turn.rows, [turn.record])
    return [message for message in found if message["role"] == "assistant"]


def sent(turn: Turn, take_back: TakeBack) -> list[Part]:
    return ChatParts(TURN, take_back, all_messages=True).feed(turn.parts)


def built(parts: list[Part]) -> list[dict[str, Any]]:
    builder = UiMessageBuilder()
    builder.add(parts)
    return builder.messages


RETRIED_ALIKE, RETRIED_ANYHOW = turns(st.just("")), turns(st.one_of(st.just(""), texts))
many = settings(max_examples=300, derandomize=True, database=None, deadline=None)


@many
@given(RETRIED_ALIKE)
def test_a_call_that_repeats_its_text(turn: Turn) -> None:
    parts = sent(turn, TakeBack.NOT_AT_ALL)
    assert built(parts) == built(merged(parts)) == expected(turn)


@many
@given(RETRIED_ALIKE)
def test_details_only_add(turn: Turn) -> None:
    rows = [row._replace(duration_ms=7) for row in turn.rows]
    detailed = ui_messages(rows, [turn.record], details=True)
    parts = [part for message in detailed for part in message["parts"]]
    took = [part.pop(name) for part in parts for name in ("providerMetadata", "callProviderMetadata") if name in part]
    assert len(took) == sum(row.role in ("tool", "reasoning") for row in rows)
    assert detailed == ui_messages(rows, [turn.record])


@many
@given(RETRIED_ANYHOW)
def test_a_call_that_writes_another_text_is_taken_back(turn: Turn) -> None:
    assert built(sent(turn, TakeBack.RESET_STEP)) == expected(turn)


@many
@given(RETRIED_ANYHOW)
def test_a_client_that_cannot_take_back_shows_no_text_twice(turn: Turn) -> None:
    parts = sent(turn, TakeBack.NOT_AT_ALL)
    if {"type": "error", "errorText": WRITTEN_ANEW} in parts:
        assert parts[-1] == {"type": "finish"}
        return
    assert built(parts) == expected(turn)


@pytest.mark.parametrize("sdk", ["ai5", "ai", "ai7"])
async def test_the_sdk_builds_the_same(node_modules: None, sdk: str) -> None:
    examples: list[Turn] = []
    take_back = TakeBack.RESET_STEP if sdk == "ai7" else TakeBack.NOT_AT_ALL

    @settings(
        max_examples=120,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(RETRIED_ANYHOW if sdk == "ai7" else RETRIED_ALIKE)
    def collect(turn: Turn) -> None:
        if sdk != "ai5" or not turn.several:
            examples.append(turn)

    collect()
    given_streams = {"sdk": sdk, "streams": [sent(turn, take_back) for turn in examples]}
    shown = json.loads(await command("node", "build.mjs", given=given_streams))
    assert len(shown) == len(examples) > 20
    for turn, found in zip(examples, shown, strict=True):
        assert found["messages"] == expected(turn)
        assert (found["error"] is None) == (turn.record.status is not TurnStatus.FAILED)


def test_a_plan_is_kept_and_a_newer_one_replaces_it() -> None:
    turn = turn_of(
        [Round("", "one", 2), Round("", "two", 2), Round("", "three", 2), Round("", "four", 0)], TurnStatus.COMPLETED
    )
    [message] = built(sent(turn, TakeBack.NOT_AT_ALL))
    plans = [part for part in message["parts"] if part["type"] == "data-plan"]
    assert plans == [{"type": "data-plan", "id": "plan", "data": {"plan": [{"step": "3", "status": "pending"}]}}]


def test_a_file_that_is_shown_is_part_of_the_message() -> None:
    turn = turn_of([Round("", "one", 3), Round("", "two", 3), Round("", "three", 0)], TurnStatus.COMPLETED)
    [message] = built(sent(turn, TakeBack.NOT_AT_ALL))
    files = [part for part in message["parts"] if part["type"] == "file"]
    assert files == [{"type": "file", "mediaType": "image/png", "url": "/v1/files/f1/content"}], (
        "a failed call shows none"
    )


def test_one_message_alone() -> None:
    """The stream of a follow-up's sender shows the turn from there on; that of the message before ends there."""
    turn = turn_of([Round("", "one", 1, follow_ups=2), Round("", "two", 0)], TurnStatus.COMPLETED)
    whole = built(sent(turn, TakeBack.NOT_AT_ALL))
    for follow_up, wanted in ((None, [whole[0]]), ("f1.0", []), ("f1.1", [whole[1]])):
        parts = ChatParts(TURN, TakeBack.NOT_AT_ALL, only=follow_up).feed(turn.parts)
        assert built(parts) == wanted
        assert parts[-1] == {"type": "finish"}
