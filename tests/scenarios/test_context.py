"""Nothing that a person or a tool sends makes a session unusable, in a window that the endpoint enforces."""

import base64
import random

import pytest

from testkit.checks import check_rows
from testkit.product import Product
from testkit.servers import calling

# 6,000 tokens as the offline model counts them, of which the system prompt and the tools take a third.
PRODUCT = {
    "settings": {
        "LONGHAUL_MODEL_STANDARD": "offline-window-6000",
        "LONGHAUL_MODEL_ADVANCED": "offline-window-3500",
        "LONGHAUL_CONTEXT_WINDOW": "6000",
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
    rows = await check_rows(product.database, sessions=[session])
    return str(rows.of(session, "assistant")[-1].content)


@pytest.mark.parametrize("kind", TEXTS)
async def test_a_long_conversation_keeps_its_first_message(product: Product, kind: str) -> None:
    session = await product.api.create_session()
    await says(product, session, f"My word is Quetzalcoatl-{kind}.")
    for number in range(TURNS):
        await says(product, session, f"{number}. " + (TEXTS[kind] * 50)[:2_000])
    assert f"Quetzalcoatl-{kind}" in await says(product, session, "What was my first message?")


async def test_a_message_larger_than_the_window_is_answered(product: Product) -> None:
    session = await product.api.create_session()
    for text in TEXTS.values():
        await says(product, session, (text * 1_000)[:32_000])
    assert "6*7 = 42" in await says(product, session, "What is 6*7?")


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
