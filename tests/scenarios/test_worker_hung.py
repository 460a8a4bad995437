"""A worker that hangs, is taken for dead and comes back to life: it writes nothing into what another has taken over."""

import pytest

from testkit.pool import ProductOptions
from testkit.product import Product
from tests.scenarios.support import next_message_works, same_as_stored, working_on

PRODUCT: ProductOptions = {"workers": 2, "settings": {"LONGHAUL_HEARTBEAT_TIMEOUT": "2", "LONGHAUL_MODEL_SMALL": ""}}


@pytest.mark.parametrize("text", ["speak 300 [delay=15]", "think: speak 200 [delay=15]"])
async def test_in_mid_stream(product: Product, text: str) -> None:
    """It has the rest of the answer in its socket already when it wakes, and would pour it into the other's text."""
    session = await product.api.create_session()
    live = await product.api.open(session, text)
    await live.until_seen("text-delta", 10)
    with product.servers.model.paused():
        worker = await working_on(product, session)
        worker.pause()
    try:
        # Its open polls swallow some of the next tries too; each of them has to time out.
        await live.until_seen("data-voided")
        came = live.log.count("text-delta")
        await live.until_seen("text-delta", came + 3)
    finally:
        worker.resume()
    log = await live.done()
    found = await same_as_stored(product, session, log)
    assert len(found.turns[session]) == 1
    assert found.turns[session][0].status == "completed"
    assert {row.round for row in found.ledger} == {row.round for row in found.of(session, "assistant")}
    await next_message_works(product, session)
