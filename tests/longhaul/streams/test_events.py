"""Parts and their JSON."""

from typing import Any

import orjson
import pytest

from longhaul.streams import events


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        ('{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ('["x"]', ["x"]),
        ("42", "42"),
        ('"quoted"', '"quoted"'),
        ("true", "true"),
        ("{broken", "{broken"),
        ("[1] and more", "[1] and more"),
        ('{"a": NaN}', '{"a": NaN}'),
        (" {}", " {}"),
    ],
)
def test_outputs_are_shown_unaltered(output: str, shown: Any) -> None:
    expected = {"type": "tool-output-available", "toolCallId": "c", "output": shown}
    assert events.tool_output_part("c", output, is_error=False) == expected
    error = {"type": "tool-output-error", "toolCallId": "c", "errorText": output}
    assert events.tool_output_part("c", output, is_error=True) == error


def test_our_own_parts() -> None:
    assert events.data_part("x", {"a": 1}) == {"type": "data-x", "data": {"a": 1}}
    assert events.data_part("x", {}, transient=True) == {"type": "data-x", "data": {}, "transient": True}
    assert events.start_part("t") == {"type": "start", "messageId": "t"}
    assert orjson.loads(events.encode({"delta": "ü🙂"})) == {"delta": "ü🙂"}


def test_fixed_ids_stand_at_both_ends() -> None:
    def number(entry_id: str) -> tuple[int, int]:
        high, low = entry_id.split("-")
        return int(high), int(low)

    assert (0, 0) < number(events.START_ID) < (1_000_000_000_000, 0), "before anything that the clock numbers"
    assert number(events.OUTCOME_ID) < number(events.FINISH_ID) == (2**64 - 1, 2**64 - 1), "nothing can follow"
    assert events.stream_key("a") != events.stream_key("b")
