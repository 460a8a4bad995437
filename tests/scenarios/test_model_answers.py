"""Unusual answers: bad arguments, unknown tools, no text, cut short, 10 MB, 20,000 pieces."""

import pytest

from testkit.pool import ProductOptions
from testkit.product import Product
from testkit.servers import script
from tests.scenarios.support import next_message_works, same_as_stored

PRODUCT: ProductOptions = {"backend": "postgresql", "settings": {"LONGHAUL_MODEL_SMALL": ""}}


@pytest.mark.parametrize(("fault", "named"), [("badargs", "not valid JSON"), ("unknowntool", "no_such_tool")])
async def test_a_call_that_cannot_be_run(product: Product, fault: str, named: str) -> None:
    """The model gets an error that names the defect, and the turn goes on."""
    session = await product.api.create_session()
    log = await product.api.stream(session, f"6*7 [fault={fault} times=1]")
    found = await same_as_stored(product, session, log)
    (result,) = found.of(session, "tool")
    assert result.is_error
    assert named in result.content
    (output,) = log.outputs().values()
    assert output == {"type": "tool-output-error", "toolCallId": result.tool_call_id, "errorText": result.content}
    assert found.turns[session][0].status == "completed"
    assert log.text()
    await next_message_works(product, session)


async def test_arguments_that_are_no_object(product: Product) -> None:
    session = await product.api.create_session()
    log = await product.api.stream(session, script({"call": "calculator", "arguments": '["6*7"]'}))
    found = await same_as_stored(product, session, log)
    assert found.of(session, "tool")[0].is_error
    assert found.turns[session][0].status == "completed"
    await next_message_works(product, session)


@pytest.mark.parametrize("fault", ["empty", "length", "content_filter"])
async def test_an_answer_that_is_not_whole(product: Product, fault: str) -> None:
    """The text so far stays, and a notice says that the answer ends there."""
    session = await product.api.create_session()
    log = await product.api.stream(session, f"speak 30 [fault={fault} times=1]")
    found = await same_as_stored(product, session, log, kinds=("message", "notice"))
    answer, notice = found.of(session, "assistant")
    assert notice.content
    words = {"empty": "Done", "length": "length", "content_filter": "filter"}
    assert words[fault] in notice.content
    assert bool(answer.content) == (fault != "empty")
    assert found.turns[session][0].status == "completed"
    await next_message_works(product, session)


async def test_ten_megabytes(product: Product) -> None:
    """Through the worker, Redis, the API and into one row, and the conversation goes on with it."""
    session = await product.api.create_session()
    log = await product.api.stream(session, script({"speak": 10_000_000, "unit": "bytes"}))
    found = await same_as_stored(product, session, log, kinds=("message",))
    assert len(found.of(session, "assistant")[0].content.encode()) >= 10_000_000
    await next_message_works(product, session)


async def test_twenty_thousand_pieces(product: Product) -> None:
    """Are gathered into far fewer events, in their order."""
    session = await product.api.create_session()
    log = await product.api.stream(session, "speak 20000 [delay=0]")
    await same_as_stored(product, session, log, kinds=("message",))
    assert 1 < log.count("text-delta") < 5_000
    assert await product.servers.model.answered(log.turn_id) == {1: 1}
    await next_message_works(product, session)
