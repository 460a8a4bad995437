"""What must not happen, happens: a defect in workflow code, a row that cannot be read. The session survives it."""

from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import text

from activities import model_report
from longhaul.contracts import ToolCall
from longhaul.settings import load_settings
from longhaul.temporal import workflow_id
from longhaul.tools import default_tools
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Product
from worker import serving
from workflows.turn import TurnLoop

DEFECT = "a defect of ours"


async def worker_here(stack: AsyncExitStack, product: Product) -> None:
    """A worker inside the test, whose code the test can change."""
    with patch.dict("os.environ", product.environment(), clear=True):
        settings = load_settings(_env_file=None)
    await stack.enter_async_context(serving(await product.temporal(), settings, default_tools()))


@pytest.mark.parametrize("place", ["_work", "_close"])
async def test_workflow_code_that_raises(
    make_product: MakeProduct, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """In the work of a turn it ends with a row that says so; even at its close the session takes the next message."""

    async def broken(_: TurnLoop) -> None:
        raise KeyError(DEFECT)

    product = await make_product(workers=0)
    session = await product.api.create_session()
    async with AsyncExitStack() as stack:
        await worker_here(stack, product)
        with monkeypatch.context() as patched:
            patched.setattr(TurnLoop, place, broken)
            live = await product.api.open(session, "hello [fault=length]")  # a turn that needs `close_turn`
            await live.until_seen("start")
            turn = live.log.turn_id
            await product.api.wait_for_turn(session, turn)
            assert (await product.api.progress(session, turn))["status"] == "failed"
        if place == "_work":
            log = check_stream(await live.done())
            assert "KeyError" in log.parts("error")[0]["errorText"]
            await product.api.until_idle(session)  # its last workflow task may still be on its way
            described = await (await product.temporal()).get_workflow_handle(workflow_id(session)).describe()
            assert described.raw_description.pending_workflow_task.attempt == 0
        following = await product.api.start(session, "6*7")
        assert (await product.api.wait_for_turn(session, following))["status"] == "completed"
        found = await check_rows(product.database, answered=place == "_work")
        assert [t.status for t in found.turns[session]] == ["failed", "completed"]
        if place == "_work":
            [error] = [row for row in found.of(session, "assistant") if row.kind == "error"]
            assert "KeyError" in error.content
            assert DEFECT not in error.content, "what an exception says may be what somebody wrote"
        await live.cut()


async def test_a_payload_that_is_too_large(make_product: MakeProduct, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporal takes 2 MB at once; more is no reason to try for ever, but one to say so."""

    def huge(**values: Any) -> ToolCall:
        return ToolCall(**{**values, "arguments": "x" * 3_000_000})

    product = await make_product(workers=0)
    session = await product.api.create_session()
    async with AsyncExitStack() as stack:
        await worker_here(stack, product)
        with monkeypatch.context() as patched:
            patched.setattr(model_report, "ToolCall", huge)
            log = check_stream(await product.api.stream(session, "2*3"))
        assert "size" in log.parts("error")[0]["errorText"]
        following = check_stream(await product.api.stream(session, "6*7"))
        assert "42" in following.text()
    found = await check_rows(product.database)
    assert [turn.status for turn in found.turns[session]] == ["failed", "completed"]


@pytest.mark.parametrize("value", ["{not json", '"text"', '[1, {"id": 2}]', '[{"id": "a"}]'])
async def test_a_row_that_cannot_be_read(product: Product, value: str) -> None:
    """Its tool calls are as good as none; the conversation around it is shown, and goes on."""
    if product.backend == "postgresql" and value.startswith("{not"):
        value = "{}"  # PostgreSQL stores nothing that is no JSON
    session = await product.api.create_session()
    await product.api.wait_for_turn(session, await product.api.start(session, "2*3"))
    cast = "CAST(:value AS JSON)" if product.backend == "postgresql" else ":value"
    async with product.database.write() as connection:
        statement = (
            f"UPDATE messages SET tool_calls = {cast}, usage = {cast} WHERE session_id = :session AND sequence = 1"  # noqa: S608
        )
        await connection.execute(text(statement), {"value": value, "session": session})
    turn = await product.api.start(session, "6*7")
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    shown = await product.api.messages(session)
    assert "42" in shown[-1]["content"]
    assert [row["sequence"] for row in shown] == list(range(len(shown)))
