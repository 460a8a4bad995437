"""Stop keeps the text so far and leaves nothing open, and the session takes the next message."""

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from longhaul.db import conversation, messages
from testkit.checks import Stored, check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.wait import until
from tests.scenarios.held_tools import Gate
from tests.scenarios.support import start_working, until_asked, until_cancel_requested

#: The regular heartbeats of these workers come too late to bring a Stop.
SLOW_HEARTBEATS = {"LONGHAUL_HEARTBEAT_INTERVAL": "60", "LONGHAUL_HEARTBEAT_TIMEOUT": "180"}


async def next_message_starts_a_turn(product: Product, session: str) -> None:
    """Check that the session takes a message as a new turn, without any wait for the end of the old one."""
    live = await product.api.open(session, "20+22")
    assert live.log.status == 200, live.log.body
    log = check_stream(await live.done())
    assert "42" in log.text()


def stopped_turn(found: Stored, session: str) -> None:
    """Check that the first turn of the session reads as stopped, also in its rows."""
    turn = found.turns[session][0]
    assert turn.status == "cancelled"
    rows = [row for row in found.of(session) if row.turn_id == turn.turn_id]
    assert [row.kind for row in rows].count("stop") == 1
    assert rows[-1].kind == "stop"


@pytest.mark.backends("postgresql")
async def test_during_a_model_call(product: Product) -> None:
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 1000 [delay=20]")
    await live.until_seen("text-delta", 5)
    assert (await product.api.cancel(session)).status == 200
    log = check_stream(await live.done())
    assert await product.servers.model.answered(log.turn_id) == {}, "Stop waited for the end of the answer"
    assert (log.count("abort"), log.count("finish")) == (1, 1)
    await next_message_starts_a_turn(product, session)
    found = await check_rows(product.database, sessions=[session], answered=False)
    stopped_turn(found, session)
    partial = found.of(session, "assistant")[0]
    assert partial.content.startswith("w1 w2 w3")
    assert log.text() == partial.content


@pytest.mark.backends("postgresql")
async def test_during_a_long_wait(product: Product) -> None:
    session = await product.api.create_session()
    live = await product.api.open(session, "wait 30 s and 2*3")
    await live.until_seen("tool-output-available")
    assert (await product.api.cancel(session)).status == 200
    log = check_stream(await live.done())
    assert (log.count("abort"), log.count("finish"), log.count("tool-output-error")) == (1, 1, 1)
    await next_message_starts_a_turn(product, session)
    found = await check_rows(product.database, sessions=[session], answered=False)
    stopped_turn(found, session)
    turn = found.turns[session][0].turn_id
    results = {row.tool_name: row.is_error for row in found.of(session, "tool") if row.turn_id == turn}
    assert results == {"wait": True, "calculator": False}


@pytest.mark.backends("postgresql")
async def test_of_nothing(product: Product) -> None:
    session = await product.api.create_session()
    assert (await product.api.cancel(session)).status == 200
    await next_message_starts_a_turn(product, session)
    assert (await product.api.cancel(session)).status == 200


@pytest.mark.backends("postgresql")
async def test_twice_at_once(product: Product) -> None:
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 1000 [delay=20]")
    await live.until_seen("text-delta")
    answers = await asyncio.gather(*(product.api.cancel(session) for _ in range(3)))
    assert {answer.status for answer in answers} == {200}
    log = check_stream(await live.done())
    assert (log.count("abort"), log.count("finish")) == (1, 1)
    await next_message_starts_a_turn(product, session)
    await check_rows(product.database, sessions=[session], answered=False)


@pytest.mark.backends("postgresql")
async def test_while_follow_ups_wait(product: Product) -> None:
    """They stay in the conversation, for the next turn to see."""
    session, waiting = await product.api.create_session(), str(uuid4())
    await start_working(product, session, "wait 30 s")
    await product.api.start(session, "what of this", waiting)
    assert (await product.api.cancel(session)).status == 200
    assert await product.api.pending(session) == []
    await next_message_starts_a_turn(product, session)
    found = await check_rows(product.database, sessions=[session], answered=False)
    assert waiting in [row.client_message_id for row in found.of(session, "user")]


async def test_in_the_queue(make_product: MakeProduct) -> None:
    """No worker has come to the turn yet: its message is kept, and not answered."""
    product = await make_product(workers=0)
    session, first, second = await product.api.create_session(), str(uuid4()), str(uuid4())
    turn = await product.api.start(session, "1+1", first)
    assert await product.api.start(session, "2+2", second) == turn
    stop = asyncio.create_task(product.api.cancel(session))
    await until_cancel_requested(product, session)
    await product.start_worker()
    assert (await stop).status == 200
    assert (await product.api.wait_for_turn(session, turn))["status"] == "cancelled"
    await product.api.until_idle(session)
    await next_message_starts_a_turn(product, session)
    found = await check_rows(product.database, sessions=[session], answered=False)
    stopped_turn(found, session)
    assert [row.client_message_id for row in found.of(session, "user")][:2] == [first, second]


async def test_while_the_turn_closes(product: Product) -> None:
    """Too late to stop anything: the turn ends once, as completed or as cancelled."""
    session = await product.api.create_session()
    live = await product.api.open(session, "speak 20 [delay=10]")
    await live.until_seen("text-delta")
    async with AsyncExitStack() as stack:
        # Hold the session's rows from the moment that the answer is stored, so that the end of the turn waits for us.
        while True:
            connection = await stack.enter_async_context(product.database.write())
            await messages.lock_session(connection, session)
            if await conversation.length(connection, session) >= 2:
                break
            await stack.aclose()
        stop = asyncio.create_task(product.api.cancel(session))
        requested = asyncio.create_task(until_cancel_requested(product, session))
        await asyncio.wait([stop, requested], return_when=asyncio.FIRST_COMPLETED)
        requested.cancel()
    assert (await stop).status == 200
    log = check_stream(await live.done())
    found = await check_rows(product.database, sessions=[session])
    assert found.turns[session][0].status == ("cancelled" if log.count("abort") else "completed")
    await next_message_starts_a_turn(product, session)


async def test_at_any_moment(product: Product) -> None:
    """Twenty turns, each stopped at a random moment of its life, before its start and behind its end included."""
    chance = random.Random(product.backend)
    sessions = [await product.api.create_session() for _ in range(20)]
    texts = ("2*3 and 4*5", "rounds 2", "speak 40", "wait 200 ms", "hello")

    async def one(session: str) -> None:
        live = await product.api.open(session, chance.choice(texts))
        await asyncio.sleep(chance.uniform(0, 1.2))
        status, body = await product.api.cancel(session)
        assert status == 200, body
        log = check_stream(await live.done())
        assert log.count("abort") <= 1
        turn = await product.api.wait_for_turn(session, log.turn_id)
        assert (turn["status"] == "cancelled") == bool(log.count("abort"))
        await next_message_starts_a_turn(product, session)

    for batch in range(0, len(sessions), 5):
        await asyncio.gather(*(one(session) for session in sessions[batch : batch + 5]))
    await check_rows(product.database, sessions=sessions, answered=False)


async def test_a_notice_brings_it(make_product: MakeProduct) -> None:
    """Without a heartbeat in time, a running call learns of the Stop by the API's notice, also one of a sub-session."""
    product = await make_product(settings=SLOW_HEARTBEATS)
    session = await product.api.create_session()
    live = await product.api.open(session, "delegate: speak 2000 [delay=20]")
    await until_working_below(product, session)
    assert (await product.api.cancel(session)).body["status"] == "cancelled"
    log = check_stream(await live.done())
    assert (log.count("abort"), log.count("finish")) == (1, 1)
    tree = await product.api.call("GET", f"/sessions/{session}/tree")
    (child,) = tree.body["children"]
    assert child["status"] == "cancelled"
    assert await product.servers.model.answered(child["turn_id"]) == {}, "Stop waited for the end of the answer"
    await next_message_starts_a_turn(product, session)


async def until_working_below(product: Product, session: str) -> None:
    """Wait until the model answers in the session's sub-session."""

    async def working() -> bool:
        children = (await product.api.call("GET", f"/sessions/{session}/tree")).body["children"]
        return bool(children) and bool(await product.servers.model.asked(children[0]["turn_id"]))

    await until(working, what="the sub-session's model call runs")


async def test_no_worker_hears_of_it(make_product: MakeProduct) -> None:
    """The turn ends with the step that it is in."""
    product = await make_product(settings=SLOW_HEARTBEATS, own_redis=True, workers=0)
    async with Redis.from_url(product.servers.redis.url()) as redis:
        await redis.acl_setuser("default", commands=["-subscribe"])  # so no notice reaches the worker
    await product.start_worker()
    session = await product.api.create_session()
    live = await product.api.open(session, "rounds 50 [ttft=1500]")
    await live.until_seen("start")
    await until_asked(product, live.log.turn_id)
    assert (await product.api.cancel(session)).body["status"] == "cancelled"
    log = check_stream(await live.done())
    assert (log.count("abort"), log.count("finish")) == (1, 1)
    found = await check_rows(product.database, answered=False)
    assert [turn.status for turn in found.turns[session]] == ["cancelled"]
    assert max(row.round for row in found.of(session, "assistant")) == 1
    assert await product.servers.model.asked(live.log.turn_id) == {1: 1}


async def test_in_parallel_tools(make_product: MakeProduct, tmp_path: Path) -> None:
    """Three runs that do not end by themselves: each gets its output row, and none is run again."""
    gate = Gate(tmp_path)
    product = await make_product(settings=gate.settings)
    session = await product.api.create_session()
    live = await product.api.open(session, "2*3 and 4*5 and 6*7")
    await until(lambda: len(gate.runs("calculator")) == 3, what="three tools run")
    assert (await product.api.cancel(session)).body["status"] == "cancelled"
    log = check_stream(await live.done())
    assert (log.count("abort"), log.count("tool-output-error")) == (1, 3)
    gate.open()
    following = check_stream(await product.api.stream(session, "hello"))
    assert following.count("finish") == 1
    found = await check_rows(product.database, answered=False)
    assert [row.is_error for row in found.of(session, "tool")] == [True] * 3
    assert [turn.status for turn in found.turns[session]] == ["cancelled", "completed"]
    assert len(gate.runs()) == 3
