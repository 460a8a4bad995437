"""The database away in mid-turn: the turn waits and goes on, no answer is paid for twice, and the API answers 503."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct, ProductOptions
from testkit.postgres import PostgresServer
from testkit.product import Product
from testkit.servers import script
from testkit.wait import until
from tests.scenarios.held_tools import Gate
from tests.scenarios.support import (
    api_raised_nothing,
    next_message_works,
    pending,
    same_as_stored,
    until_answer_is_kept,
    until_answered,
    until_cancel_requested,
)

PRODUCT: ProductOptions = {"backend": "postgresql", "own_postgres": True, "settings": {"LONGHAUL_MODEL_SMALL": ""}}
AWAY_S = 6.0
LARGE = 1_000_000


def database(product: Product) -> PostgresServer:
    assert product.servers.postgres is not None
    return product.servers.postgres


async def says_503(product: Product, method: str, path: str, **options: Any) -> None:
    """While it is away, as a problem, with the time to come back."""
    answer = await product.api.http.request(method, f"/v1{path}", **options)
    assert answer.status_code == 503, f"{method} {path}: {answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert "database" in answer.json()["detail"].lower()


async def api_without_rows(product: Product, session: str, turn_id: str) -> None:
    await asyncio.gather(
        says_503(product, "GET", "/sessions"),
        says_503(product, "POST", "/sessions", json={}),
        says_503(product, "GET", f"/sessions/{session}"),
        says_503(product, "POST", f"/sessions/{session}/messages", json={"message": "hello"}),
        says_503(product, "POST", f"/sessions/{session}/stream", json={"message": "hello"}),
        says_503(product, "GET", f"/sessions/{session}/tree"),
    )
    await still_watched(product, session, turn_id)
    assert (await product.api.http.get("/healthz")).status_code == 200
    assert (await product.api.http.get("/readyz")).status_code == 503


async def still_watched(product: Product, session: str, turn_id: str) -> None:
    """Redis knows the session's owner, Temporal the turn's status. A session of another user reads as unknown."""
    resumed = await product.api.resume(session, cut_after=3)
    assert (resumed.status, resumed.turn_id) == (200, turn_id)
    assert resumed.types[:2] == ["start", "start-step"]
    named = await product.api.resume(session, cut_after=1, turn_id=turn_id)
    assert (named.status, named.turn_id) == (200, turn_id)
    progress = await product.api.progress(session, turn_id)
    assert (progress["turn_id"], progress["status"], progress["round"]) == (turn_id, "running", 1)
    await says_503(product, "GET", f"/sessions/{session}/turns/{uuid4()}")
    await says_503(product, "GET", f"/sessions/{uuid4()}/stream")


@pytest.mark.parametrize("text", ["speak 100 [delay=15]", "think: speak 60 [delay=15]"])
async def test_while_the_model_speaks(product: Product, text: str) -> None:
    """The answer ends while no row can be stored; it is kept, and stored when the database is back."""
    session = await product.api.create_session()
    live = await product.api.open(session, text)
    await live.until_seen("text-delta", 10)
    turn = live.log.turn_id
    await database(product).stop()
    gone = time.monotonic()
    await api_without_rows(product, session, turn)
    await until_answered(product, turn)
    await until(lambda: time.monotonic() - gone > AWAY_S, what="it has been away long enough")
    assert not live.log.finished
    await database(product).start()
    log = await live.done()
    await same_as_stored(product, session, log, kinds=("message",))
    assert await product.servers.model.answered(turn) == {1: 1}
    assert not log.voided
    await next_message_works(product, session)
    api_raised_nothing(product)


async def test_while_nine_large_results_wait(make_product: MakeProduct, tmp_path: Path) -> None:
    """They are more than Temporal lets the checkpoints of one turn be. The turn goes on; no tool runs again."""
    gate = Gate(tmp_path)
    product = await make_product(backend="postgresql", own_postgres=True, settings=gate.settings)
    session = await product.api.create_session()
    calls = [{"call": "recite", "arguments": {"length": LARGE + number}} for number in range(9)]
    turn = await product.api.start(session, script(*calls))
    await until(lambda: len(gate.runs("recite ")) == 9, what="nine tools run")
    await database(product).stop()
    gate.open()
    await until(lambda: len(gate.runs("recited ")) == 9, what="nine results wait to be stored")
    recited = datetime.now(UTC)

    async def reported() -> bool:
        """Each attempt has sent a heartbeat since, with its result if the result is a checkpoint."""
        beats = [one.last_heartbeat_time.ToDatetime(UTC) for one in await pending(product, session)]
        return len(beats) == 9 and min(beats) > recited

    await until(reported, what="Temporal has heard from all nine")
    await database(product).start()
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    found = await check_rows(product.database, sessions=[session])
    assert sorted(len(row.content) for row in found.of(session, "tool")) == [LARGE + number for number in range(9)]
    assert len(gate.runs("recite ")) == 9


async def test_while_a_tool_waits(product: Product) -> None:
    """The next rounds find no database, wait for it, and go on."""
    session = await product.api.create_session()
    live = await product.api.open(session, "rounds 3 and wait 1500 ms and 2*3")
    await live.until_seen("tool-output-available")
    turn = live.log.turn_id
    await database(product).stop()
    gone = time.monotonic()
    await until(lambda: time.monotonic() - gone > AWAY_S, what="it has been away long enough")
    assert not live.log.finished
    await database(product).start()
    log = await live.done()
    found = await same_as_stored(product, session, log)
    assert found.turns[session][0].status == "completed"
    assert set((await product.servers.model.answered(turn)).values()) == {1}
    await next_message_works(product, session)


async def test_a_long_answer_is_kept_too(product: Product) -> None:
    """2 MB fit into no payload; still nothing is asked for twice."""
    session = await product.api.create_session()
    live = await product.api.open(session, script({"speak": 2_000_000, "unit": "bytes"}, {"ttft": 2500}))
    await live.until_seen("start-step")
    turn = live.log.turn_id
    await database(product).stop()
    await until_answered(product, turn)
    gone = time.monotonic()
    await until(lambda: time.monotonic() - gone > AWAY_S, what="it has been away long enough")
    await database(product).start()
    log = await live.done()
    await same_as_stored(product, session, log, kinds=("message",))
    assert await product.servers.model.answered(turn) == {1: 1}


async def test_the_worker_dies_while_the_answer_waits(product: Product) -> None:
    """Another one finds the finished answer in the heartbeat's details and stores it: nothing is asked for again."""
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 40 [delay=25]")
    await live.until_seen("text-delta", 3)
    turn = live.log.turn_id
    await database(product).stop()
    await until_answer_is_kept(product, session)
    product.kill(product.workers[0])
    await database(product).start()
    await product.revive()
    log = await live.done()
    await same_as_stored(product, session, log, kinds=("message",))
    assert await product.servers.model.answered(turn) == {1: 1}
    assert await product.servers.model.asked(turn) == {1: 1}
    await next_message_works(product, session)


async def test_stop_while_the_answer_waits(product: Product) -> None:
    """Stop needs rows as well; it is done when they are back, and what was said is kept."""
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 40 [delay=10]")
    await live.until_seen("text-delta", 3)
    turn = live.log.turn_id
    await database(product).stop()
    await until_answered(product, turn)
    # The API has the session's copy and Temporal takes the request; it waits for the turn's end, which waits for rows.
    stop = asyncio.create_task(product.api.call("POST", f"/sessions/{session}/cancel"))
    await until_cancel_requested(product, session)
    await database(product).start()
    assert (await stop).status == 200
    log = check_stream(await live.done())
    found = await check_rows(product.database, sessions=[session], answered=False)
    assert found.turns[session][0].status == "cancelled"
    assert [row.content for row in found.of(session, "assistant")] == [log.text()]
    assert log.text().endswith("w40")
    assert (log.count("abort"), log.count("finish")) == (1, 1)
    await next_message_works(product, session)


async def test_a_message_that_could_not_be_stored(product: Product) -> None:
    """503 means that nothing was taken; the same message again, when the database is back, is one message."""
    session = await product.api.create_session()
    await database(product).stop()
    message_id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
    assert (await product.api.post(session, "6*7", message_id)).status == 503
    await database(product).start()

    async def taken() -> bool:
        try:
            return (await product.api.post(session, "6*7", message_id)).status == 202
        except httpx2.HTTPError:
            return False

    await until(taken, what="the message is taken")
    turns = await product.api.turns(session)
    turn = await product.api.start(session, "6*7", message_id)
    assert turns == [] or turns[0]["turn_id"] == turn
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    assert len([m for m in await product.api.messages(session) if m["role"] == "user"]) == 1
