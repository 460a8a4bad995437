"""A model endpoint that refuses, fails, breaks off or falls silent."""

import re
from typing import Any
from uuid import uuid4

import pytest

from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import ProductOptions
from testkit.product import Product
from tests.scenarios.support import next_message_works, same_as_stored

RETRY_S, BACKOFF_MAX_S = 3.0, 2.0
PRODUCT: ProductOptions = {
    "own_model": True,
    "settings": {
        "LONGHAUL_MODEL_RETRY_SECONDS": str(RETRY_S),
        "LONGHAUL_MODEL_BACKOFF_BASE": "0.05",
        "LONGHAUL_MODEL_BACKOFF_MAX": str(BACKOFF_MAX_S),
        "LONGHAUL_MODEL_IDLE_TIMEOUT": "1",
        "LONGHAUL_MODEL_SMALL": "",
    },
}
MENDED = [
    *(f"status:{code}" for code in (408, 409, 429, 500, 502, 503, 529)),
    *("status:400:x-should-retry=true", "refuse", "cut:0", "cut:5", "badchunk:4", "silence:30:0", "silence:30:3"),
]
FINAL = {
    **{f"status:{code}": str(code) for code in (400, 401, 403, 404, 422)},
    "status:503:x-should-retry=false": "503",
}
LASTING = {"status:503": "503", "refuse": "cannot be reached", "cut:4": "broke off", "badchunk:2": "not JSON"}
WAITS = {
    "status:429:retry-after=1": (1.0, 1.0),
    "status:429:retry-after=1.5": (1.5, 1.5),
    "status:503:retry-after=date+2": (1.0, 2.0),
    "status:429:retry-after-ms=700": (0.7, 0.7),
    "status:429:retry-after=600": (2.0, 2.0),
    "status:429:retry-after=soon": (0.0, 0.1),
    "status:500": (0.0, 0.1),
}


async def calls(product: Product, turn_id: str) -> tuple[int, int]:
    """How often the endpoint was asked for the turn's first round, and how often it gave a whole answer."""
    model = product.servers.model
    return (await model.asked(turn_id)).get(1, 0), (await model.answered(turn_id)).get(1, 0)


async def records(product: Product, turn_id: str) -> list[dict[str, Any]]:
    stats = await product.servers.model.stats()
    return [record for record in stats["recent"] if record["key"] == f"{turn_id}:1"]


@pytest.mark.parametrize("fault", MENDED)
async def test_a_fault_that_passes(product: Product, fault: str) -> None:
    """The answer is whole; text of the failed attempt that was shown is taken back."""
    session = await product.api.create_session()
    log = await product.api.stream(session, f"speak 20 [fault={fault} times=1]")
    found = await same_as_stored(product, session, log, kinds=("message",))
    assert log.text().split()[:20] == [f"w{n}" for n in range(1, 21)]
    assert found.turns[session][0].status == "completed"
    assert await calls(product, log.turn_id) == (2, 1)
    began = fault.startswith(("cut", "badchunk", "silence"))
    statuses = [row.status for row in sorted(found.ledger, key=lambda row: row.attempt) if row.kind == "turn"]
    assert statuses == ["estimated", "booked"][not began :], "what the endpoint has refused costs nothing"
    shown = fault in ("cut:5", "badchunk:4", "silence:30:3")
    assert bool(log.voided) == shown, log.types
    await next_message_works(product, session)


async def failed(product: Product, fault: str, named: str, *, retried: bool) -> None:
    """The turn fails with a row that says why and how often the model was tried, and the session goes on.

    Text of the last attempt stays, marked as cut off; a client shows what the rows hold.
    """
    session = await product.api.create_session()
    named_so = uuid4().hex
    await product.servers.model.fault(fault, match=named_so, times=100)
    log = check_stream(await product.api.stream(session, f"hello {named_so}"))
    await product.servers.model.clear_faults()
    tries = (await calls(product, log.turn_id))[0]
    assert (tries > 1) == retried
    found = await check_rows(product.database, sessions=[session], answered=False)
    row = found.of(session)[-1]
    assert (row.role, row.kind, row.is_error) == ("assistant", "error", True)
    assert named in row.content
    assert (f"Tried {tries} times." in row.content) == retried
    assert log.parts("error") == [{"type": "error", "errorText": row.content}]
    shown = fault.startswith(("cut", "badchunk"))
    kept = [(row.content, row.finish_reason) for row in found.of(session) if row.kind == "partial"]
    assert kept == ([(log.text(), "cut_off")] if shown else [])
    assert bool(log.text()) == shown
    retries = [part["data"] for part in log.parts("data-progress") if "retrying_in" in part["data"]]
    assert len(retries) == tries - 1
    assert all(0 < retry["retrying_in"] <= BACKOFF_MAX_S for retry in retries)
    turn = await product.api.wait_for_turn(session, log.turn_id)
    assert (turn["status"], turn["error"]) == ("failed", row.content)
    booked = [row.status for row in found.ledger if row.kind == "turn"]
    assert booked == (["estimated"] * tries if shown else [])
    assert turn["usage"]["calls"] == len(booked)
    await next_message_works(product, session)


@pytest.mark.parametrize("fault", FINAL)
async def test_a_refusal_is_not_tried_again(product: Product, fault: str) -> None:
    await failed(product, fault, FINAL[fault], retried=False)


@pytest.mark.parametrize("fault", LASTING)
async def test_a_fault_that_lasts(product: Product, fault: str) -> None:
    await failed(product, fault, LASTING[fault], retried=True)


async def test_stop_while_a_retry_waits(product: Product) -> None:
    """The wait ends at once."""
    session = await product.api.create_session()
    named_so = uuid4().hex
    await product.servers.model.fault("status:503:retry-after=2", match=named_so, times=100)
    live = await product.api.open(session, f"hello {named_so}")
    await live.until_seen("data-progress", 2)  # the step's own, and that of the retry
    await product.api.cancel(session)
    await product.servers.model.clear_faults()
    log = check_stream(await live.done())
    assert log.types[-3:-1] == ["abort", "finish"]
    assert (await product.api.wait_for_turn(session, log.turn_id))["status"] == "cancelled"
    following = await product.api.start(session, "6*7")
    assert (await product.api.wait_for_turn(session, following))["status"] == "completed"


@pytest.mark.parametrize("fault", WAITS)
async def test_the_wait_that_was_asked_for(product: Product, fault: str) -> None:
    """Seconds, date or milliseconds, up to the cap; else a short wait of our own. It is shown, and kept."""
    session = await product.api.create_session()
    log = await product.api.stream(session, f"hello [fault={fault} times=1]")
    await same_as_stored(product, session, log, kinds=("message",))
    first, second = await records(product, log.turn_id)
    [wait] = [part["data"]["retrying_in"] for part in log.parts("data-progress") if "retrying_in" in part["data"]]
    least, most = WAITS[fault]
    assert least <= wait <= most
    assert second["started_at"] - first["ended_at"] >= wait - 0.05


async def test_a_fault_in_a_later_round(product: Product) -> None:
    """The rounds before it are not asked for again."""
    session = await product.api.create_session()
    log = await product.api.stream(session, "rounds 3 [fault=cut:1 times=1 round=3]")
    await same_as_stored(product, session, log)
    assert await product.servers.model.asked(log.turn_id) == {1: 1, 2: 1, 3: 2, 4: 1}


async def test_the_endpoint_is_down(product: Product) -> None:
    """The endpoint is down: the turn fails with a row that says so; when it is up again the next message works."""
    product.servers.model.kill()
    session = await product.api.create_session()
    log = check_stream(await product.api.stream(session, "hello"))
    found = await check_rows(product.database, sessions=[session], answered=False)
    row = found.of(session)[-1]
    assert row.kind == "error"
    assert re.fullmatch(r"The model endpoint cannot be reached\. Tried \d+ times\.", row.content)
    assert log.parts("error") == [{"type": "error", "errorText": row.content}]
    await product.servers.model.start()
    await next_message_works(product, session)
