"""Turns by the Responses API: tools, reasoning and Stop; what only the endpoint may read stays in the database."""

from sqlalchemy import select

from longhaul.db.models import EncryptedReasoningRow
from longhaul.temporal import workflow_id
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import ProductOptions
from testkit.product import Product

PRODUCT: ProductOptions = {"backend": "sqlite", "settings": {"LONGHAUL_MODEL_API": "responses"}}
SEALED = "offline:"


async def test_a_turn_with_tools_and_one_that_is_stopped(product: Product) -> None:
    session = await product.api.create_session()
    log = check_stream(await product.api.stream(session, "think about it: rounds 2", mode="extended_thinking"))
    await product.api.until_idle(session)
    assert "2 of 2 rounds are done" in log.text()
    assert log.reasoning()
    history = await (await product.temporal()).get_workflow_handle(workflow_id(session)).fetch_history()
    async with product.database.read() as connection:
        kept = [row.message_id for row in await connection.execute(select(EncryptedReasoningRow.message_id))]
    assert len(kept) == 3, "one for each round"
    shown = await product.api.session(session)
    for seen in (history.to_json(), str(log.events), str(shown)):
        assert SEALED not in seen
    live = await product.api.open(session, "speak 400 [delay=20]")
    await live.until_seen("text-delta", 3)
    await product.api.cancel(session)
    stopped = check_stream(await live.done())
    found = await check_rows(product.database, sessions=[session], answered=False)
    assert found.turns[session][-1].status == "cancelled"
    [partial] = [row for row in found.of(session, "assistant") if row.kind == "partial"]
    assert partial.content == stopped.text() != ""
    assert [row.status for row in found.ledger if row.turn_id == partial.turn_id] == ["estimated"]
