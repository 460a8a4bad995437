"""Reasoning rows: in their order among text and tools, each the join of its deltas, with the duration shown."""

from itertools import groupby
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from activities.answers import answer_rows
from longhaul.db import conversation
from longhaul.db.database import Database
from longhaul.llm.completion import Assembler, Completion
from longhaul.llm.request import openai_messages
from longhaul.streams.blocks import Block, blocks_of_rows
from longhaul.streams.events import Part
from longhaul.streams.step_writer import StepWriter
from tests.activities.conftest import TURN
from tests.activities.model_calls import CALL, Recorder, attempt

deltas = st.lists(st.tuples(st.sampled_from(["reasoning", "content", "tool"]), st.text("ab ", min_size=1)), max_size=12)


def chunk(kind: str, said: str, number: int) -> dict[str, Any]:
    call = {"index": number, "id": f"c{number}", "function": {"name": "calculator", "arguments": "{}"}}
    return {"choices": [{"delta": {"tool_calls": [call]} if kind == "tool" else {kind: said}}]}


def shown(parts: list[Part]) -> list[Block]:
    """The blocks of a stream; texts that only a tool call separates are one."""
    streamed: dict[str, Block] = {}
    for part in parts:
        kind, _, verb = part["type"].partition("-")
        if kind not in ("text", "reasoning"):
            continue
        block = streamed.get(part["id"], Block(kind, ""))
        if verb == "delta":
            block = block._replace(text=block.text + part["delta"])
        elif verb == "end" and kind == "reasoning":
            block = block._replace(duration_ms=part["providerMetadata"]["longhaul"]["duration_ms"])
        streamed[part["id"]] = block
    blocks: list[Block] = []
    for kind, group in groupby(streamed.values(), lambda block: block.kind):
        same = list(group)
        blocks += same if kind == "reasoning" else [Block(kind, "".join(block.text for block in same))]
    return blocks


@given(deltas, st.booleans())
def test_the_rows_say_what_was_streamed(stream: list[tuple[str, str]], cut: bool) -> None:
    """Also of a stream that breaks off."""
    found = Assembler()
    parts: list[Part] = []
    step = StepWriter(parts.append, 1, 1)
    for number, (kind, said) in enumerate(stream):
        step.show(found.feed(chunk(kind, said, number)))
    step.show(found.rest() if cut else found.feed({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    step.close_block()
    made = found.completion(0)
    assert made.blocks() == shown(parts)
    *thoughts, answer = answer_rows(CALL, Completion.model_validate_json(made.model_dump_json()), "message", "m")
    assert blocks_of_rows(thoughts, answer) == shown(parts)
    assert [row.content for row in thoughts] == [block.text for block in shown(parts) if block.kind == "reasoning"]
    assert len({row.id for row in thoughts}) == len(thoughts)


def test_a_checkpoint_of_an_older_version_has_its_reasoning_first() -> None:
    old = Completion.model_validate({"text": "yes", "reasoning": "hm"})
    assert old.blocks() == [Block("reasoning", "hm"), Block("text", "yes")]


class Thinking:
    """A model that reasons twice."""

    async def stream(self, request: dict[str, Any], *, call_key: str) -> Any:  # noqa: ARG002
        for kind, said in (("reasoning", "hm"), ("content", "One. "), ("reasoning", "well"), ("content", "Two.")):
            yield chunk(kind, said, 0)
        yield {"choices": [{"delta": {}, "finish_reason": "stop"}]}


async def test_stored_shown_and_not_sent_again(database: Database) -> None:
    """The next attempt, whose worker found the answer stored, shows it as it was."""
    stream = Recorder()
    model: Any = Thinking()
    _, failure = await attempt(database, model, stream, None, 1, 0)
    assert failure is None
    async with database.read() as connection:
        rows = await conversation.rows_of_round(connection, TURN.turn_id, 1)
        prompt = await conversation.for_model(connection, TURN.session_id)
    blocks = shown(stream.parts)
    assert [block[:2] for block in blocks] == [
        ("reasoning", "hm"),
        ("text", "One. "),
        ("reasoning", "well"),
        ("text", "Two."),
    ]
    assert [(row.role, row.content) for row in rows] == [
        ("reasoning", "hm"),
        ("reasoning", "well"),
        ("assistant", "One. Two."),
    ]
    assert blocks_of_rows(rows[:-1], rows[-1]) == blocks
    again = Recorder()
    await attempt(database, model, again, None, 2, 0)
    assert shown(again.parts) == blocks
    assert openai_messages(prompt, tool_result_max=0) == [{"role": "assistant", "content": "One. Two."}]
