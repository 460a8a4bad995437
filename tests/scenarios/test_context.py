"""Nothing that a person or a tool sends makes a session unusable, in a window that the endpoint enforces."""

import base64
import random

import pytest

from longhaul.db import messages, sessions
from longhaul.db.messages import NewMessage
from testkit.checks import check_rows
from testkit.product import Product
from testkit.servers import calling
from tests.scenarios.support import same_as_stored

# 9,000 tokens as the offline model counts them, of which the system prompt and the tools take a third.
PRODUCT = {
    "settings": {
        "LONGHAUL_MODEL_STANDARD": "offline-window-9000",
        "LONGHAUL_MODEL_ADVANCED": "offline-window-6500",
        "LONGHAUL_CONTEXT_WINDOW": "9000",
    }
}
RANDOM = random.Random(1)
TEXTS = {
    "english": "The durable session keeps every message, whatever happens to the workers. ",
    "chinese": "持久的会话引擎把每一轮对话都保存为可恢复的工作流，这样即使服务器崩溃，用户的消息也不会丢失。",
    "base64": base64.b64encode(RANDOM.randbytes(3_000)).decode(),
    "json": '{"id":71253,"price":0.4437,"ok":true,"t":[17,4,99]},',
}
TURNS = 12


async def says(product: Product, session: str, text: str) -> str:
    """The answer of a turn, which must complete."""
    turn = await product.api.start(session, text)
    progress = await product.api.wait_for_turn(session, turn)
    assert progress["status"] == "completed", progress["error"]
    rows = await check_rows(product.database, sessions=[session], answered=False)
    return str(rows.of(session, "assistant")[-1].content)


@pytest.mark.parametrize("kind", TEXTS)
async def test_a_long_conversation_keeps_its_first_message(product: Product, kind: str) -> None:
    session = await product.api.create_session()
    await says(product, session, f"My word is Quetzalcoatl-{kind}.")
    for number in range(TURNS):
        await says(product, session, f"{number}. " + (TEXTS[kind] * 50)[:2_000])
    log = await product.api.stream(session, "What was my first message?")
    found = await same_as_stored(product, session, log)
    assert f"Quetzalcoatl-{kind}" in log.text()
    summaries = [row for row in found.of(session, "system") if row.kind == "summary"]
    booked = [row for row in found.ledger if row.session_id == session and row.kind == "compaction"]
    assert len(summaries) == len(booked) > 0
    assert {row.turn_id for row in summaries} == {row.turn_id for row in booked}
    usage = (await product.api.call("GET", f"/sessions/{session}/turns")).body["turns"]
    assert sum(turn["usage"]["calls"] for turn in usage) == len([row for row in found.ledger if row.kind != "title"])


async def test_people_see_that_a_conversation_is_summarised(product: Product) -> None:
    """Live, in the rows, and from the rows again."""
    session = await product.api.create_session()
    for number in range(TURNS):
        await says(product, session, f"{number}. " + (TEXTS["english"] * 50)[:4_000])
        rows = await check_rows(product.database, sessions=[session])
        if rows.of(session, "assistant")[-1].kind == "message" and await is_due(product, session):
            break
    log = await product.api.stream(session, "hello")
    found = await same_as_stored(product, session, log)
    [summary] = [row for row in found.of(session, "system") if row.turn_id == log.turn_id]
    [shown] = [part["data"] for part in log.parts("data-compaction")]
    assert shown["message_id"] == summary.id
    assert shown["until"] < summary.sequence
    assert summary.id in [row["id"] for row in await product.api.messages(session)]


async def is_due(product: Product, session: str) -> bool:
    async with product.database.read() as connection:
        return bool((await sessions.get(connection, session)).compaction_due)


async def test_a_model_that_does_not_summarise_costs_no_turn(product: Product) -> None:
    session = await product.api.create_session()
    await product.servers.model.fault("status:500", match="[user]", times=99)
    try:
        for number in range(TURNS // 2):
            await says(product, session, f"{number}. " + (TEXTS["chinese"] * 90)[:4_000])
    finally:
        await product.servers.model.clear_faults()
    rows = await check_rows(product.database, sessions=[session])
    assert "summary" not in {row.kind for row in rows.of(session, "system")}
    await says(product, session, "hello")
    rows = await check_rows(product.database, sessions=[session])
    assert "summary" in {row.kind for row in rows.of(session, "system")}


async def test_a_conversation_of_ten_thousand_rows_costs_what_a_short_one_costs(product: Product) -> None:
    """In tokens that are sent; `longhaul/db/test_conversation.py` counts the rows that are read."""
    session = await product.api.create_session()
    await says(product, session, "My word is Quetzalcoatl.")
    rows = [NewMessage(f"{session}-{n}", ("user", "assistant")[n % 2], f"{n}: yes") for n in range(10_000)]
    async with product.database.write() as connection:
        await messages.append(connection, session, rows)
    for _ in range(2):
        await says(product, session, "hello")
    assert "Quetzalcoatl" in await says(product, session, "What was my first message?")
    found = await check_rows(product.database, sessions=[session], answered=False)
    sent = [row.prompt_tokens for row in found.ledger if row.kind == "turn" and row.session_id == session]
    assert sent[-1] < sent[0] + 1_000


async def test_a_message_larger_than_the_window_is_answered(product: Product) -> None:
    session = await product.api.create_session()
    for text in TEXTS.values():
        await says(product, session, (text * 1_000)[:32_000])
    assert "= 42" in await says(product, session, "What is 6*7?")


async def test_a_result_larger_than_the_window_is_cut_and_can_be_read_on(product: Product) -> None:
    session = await product.api.create_session()
    content = (TEXTS["base64"] * 10)[:31_000]
    workspace = product.folder / "home" / "workspaces" / session
    workspace.mkdir(parents=True)
    (workspace / "long.txt").write_text(content)
    await says(product, session, "read file long.txt")
    rows = await check_rows(product.database, sessions=[session])
    result = rows.of(session, "tool")[-1]
    assert result.content == content, "the row keeps it all"
    await says(product, session, calling("read_tool_result", tool_call_id=result.tool_call_id, offset=20_000))
    rows = await check_rows(product.database, sessions=[session])
    assert rows.of(session, "tool")[-1].content == content[20_000:]


async def test_a_window_smaller_than_the_setting_costs_refusals_and_no_turn(product: Product) -> None:
    """A tier whose model takes less than `LONGHAUL_CONTEXT_WINDOW`."""
    session = await product.api.create_session()
    for text in TEXTS.values():
        turn = await product.api.start(session, (text * 1_000)[:32_000], tier="advanced")
        progress = await product.api.wait_for_turn(session, turn)
        assert progress["status"] == "completed", progress["error"]
        assert (await product.servers.model.asked(turn))[1] > 1, "refused at least once"
