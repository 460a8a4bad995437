"""A message that arrives while a turn runs is taken by that turn, between two of its steps."""

from typing import Any
from uuid import uuid4

from testkit.checks import Stored, check_rows
from testkit.grammar import check_stream
from testkit.product import Product
from tests.scenarios.support import start_working


def roles(found: Stored, session: str) -> list[str]:
    """The roles of a session's rows in order, what the model thought left out."""
    return [row.role for row in found.of(session, "user", "assistant", "tool", "system")]


async def follow_up(product: Product, session: str, turn_id: str, text: str) -> str:
    """Post to a busy session and check the answer; the message's id."""
    message_id = str(uuid4())
    log = await product.api.stream(session, text, message_id)
    body: dict[str, Any] = log.body
    assert log.status == 202, log
    assert (body["turn_id"], body["message_id"], body["turn_in_flight"]) == (turn_id, message_id, True)
    assert body["buffer_length"] >= 1
    assert body["max_buffer_length"] == 10
    return message_id


async def test_during_tools(product: Product) -> None:
    session, first = await product.api.create_session(), str(uuid4())
    live = await product.api.open(session, "wait 2 s and 2*3", first)
    await live.until_seen("tool-input-available", 2)
    turn = live.log.turn_id
    second = await follow_up(product, session, turn, "make it short")
    third = await follow_up(product, session, turn, "and in English")
    pending = await product.api.pending(session)
    assert [(message["id"], message["content"]) for message in pending] == [
        (second, "make it short"),
        (third, "and in English"),
    ]
    progress = await product.api.progress(session, turn)
    assert [message["message_id"] for message in progress["inbox"]] == [second, third]
    assert "wait" in [tool["name"] for tool in progress["tools_running"]]

    log = check_stream(await live.done())
    found = await check_rows(product.database, {session: [first, second, third]})
    assert roles(found, session) == ["user", "assistant", "tool", "tool", "user", "user", "assistant"]
    assert [row.client_message_id for row in found.of(session, "user")] == [first, second, third]
    answer = found.of(session, "assistant")[-1]
    assert "About your follow-up: “make it short”; “and in English”" in answer.content
    assert answer.round == 2
    assert log.text() == "".join(row.content for row in found.of(session, "assistant"))
    assert log.count("data-follow-up") == 2
    results = {row.tool_call_id: row.content for row in found.of(session, "tool")}
    assert {call: str(part["output"]) for call, part in log.outputs().items()} == results
    assert await product.api.pending(session) == []


async def test_during_the_last_model_call(product: Product) -> None:
    session, first = await product.api.create_session(), str(uuid4())
    live = await product.api.open(session, "speak 100 [delay=15]", first)
    await live.until_seen("text-delta")
    second = await follow_up(product, session, live.log.turn_id, "one more thing")
    log = check_stream(await live.done())
    found = await check_rows(product.database, {session: [first, second]})
    assert roles(found, session) == ["user", "assistant", "user", "assistant"]
    said = [row.content for row in found.of(session, "assistant")]
    assert said[0].startswith("w1 w2")
    assert said[0].endswith("w100")
    assert "About your follow-up: “one more thing”" in said[1]
    assert len(found.turns[session]) == 1
    assert log.text() == "".join(said)


async def test_at_most_ten_wait(product: Product) -> None:
    session = await product.api.create_session()
    turn = await start_working(product, session, "wait 5 s")  # what is accepted earlier is taken at its opening
    answers = [await product.api.post(session, f"more {n}") for n in range(12)]
    assert [answer.status for answer in answers] == [202] * 10 + [429] * 2
    await product.api.wait_for_turn(session, turn)
    accepted = [answer.body["message_id"] for answer in answers if answer.status == 202]
    found = await check_rows(product.database, sessions=[session])
    assert [row.client_message_id for row in found.of(session, "user")[1:]] == accepted
