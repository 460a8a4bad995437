"""A turn that waits for sub-sessions obeys Stop and takes messages meanwhile, and holds no slot of a worker."""

import asyncio

import pytest

from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.wait import until
from tests.scenarios.sub_sessions import (
    GET,
    RUN,
    Used,
    nothing_runs,
    results,
    running,
    stop_all,
    sub_of,
    tree,
    waiting,
    walk,
)

pytestmark = pytest.mark.backends("sqlite")  # it is Temporal that waits
PARENTS = 15


async def test_stop_while_waiting(product: Product) -> None:
    """What is waited for stops with it, two levels down; a detached one goes on."""
    session = await product.api.create_session()
    live = await product.api.open(session, "delegate: (delegate: wait 60 s)")
    await live.until_seen("tool-input-available")
    await waiting(product, session, live.log.turn_id)
    await product.api.start(session, "delegate detached: (wait 60 s)")
    awaited, detached = await sub_of(product, session, 2)
    (leaf,) = await sub_of(product, awaited)
    status, body = await product.api.cancel(session)
    assert (status, body["status"]) == (200, "cancelled")
    log = check_stream(await live.done())
    assert (log.count("abort"), log.count("finish")) == (1, 1)
    await nothing_runs(product, [session, awaited, leaf])
    assert await running(product, [detached]) == [detached]
    shown = {node["session_id"]: node["status"] for node in walk(await tree(product, session))}
    assert shown == {session: "cancelled", awaited: "cancelled", leaf: "cancelled", detached: "running"}
    turn = log.turn_id
    listed = (await product.api.progress(session, turn))["sub_sessions"]
    assert {one["sub_session_id"]: one["status"] for one in listed} == {awaited: "cancelled", detached: "running"}
    await product.api.cancel(detached)
    listed = (await product.api.progress(session, turn))["sub_sessions"]
    assert {one["sub_session_id"]: one["status"] for one in listed} == {awaited: "cancelled", detached: "cancelled"}
    await check_rows(product.database, sessions=[session, awaited, leaf, detached], answered=False)


async def test_a_message_ends_the_wait(product: Product) -> None:
    session = await product.api.create_session()
    turn = await product.api.start(session, "delegate: wait 60 s")
    await waiting(product, session, turn)
    await product.api.start(session, "what is 2+3")
    await waiting(product, session, turn, GET)
    found = (await results(product, session, RUN, turn))[0].json
    assert found["status"] == "running"
    assert found["elapsed_seconds"] < 60
    assert found["message"].startswith("The user wrote a message")

    async def calculated() -> list[Used]:
        return await results(product, session, "calculator", turn)

    (made,) = await until(calculated, what="the model reacts to the message")
    assert "5" in made.output
    ids = await stop_all(product, session)
    await check_rows(product.database, sessions=ids, answered=False)


async def test_stop_in_the_midst_of_starting(product: Product) -> None:
    """Stop at any moment leaves no sub-session running and none with a prompt that waits."""
    sessions = [await product.api.create_session() for _ in range(6)]

    async def one(session: str, after: float) -> None:
        live = await product.api.open(session, "delegate: wait 60 s; wait 60 s")
        await live.until_seen("tool-input-available", 1)
        await asyncio.sleep(after)
        assert (await product.api.cancel(session)).body["status"] == "cancelled"
        check_stream(await live.done())

    await asyncio.gather(*(one(session, 0.05 * number) for number, session in enumerate(sessions)))
    ids = [node["session_id"] for session in sessions for node in walk(await tree(product, session))]
    await nothing_runs(product, ids)
    await check_rows(product.database, sessions=ids, answered=False)


async def test_waiting_takes_no_worker_slot(make_product: MakeProduct) -> None:
    product = await make_product(settings={"LONGHAUL_MAX_CONCURRENT_ACTIVITIES": "10"})
    parents = [await product.api.create_session() for _ in range(PARENTS)]
    turns = {session: await product.api.start(session, "delegate: wait 120 s") for session in parents}
    for session, turn in turns.items():
        await waiting(product, session, turn)
    other = await product.api.create_session()
    log = check_stream(await product.api.stream(other, "6*7"))
    assert "42" in log.text()
    ids = [node["session_id"] for session in parents for node in walk(await tree(product, session))]
    assert len(await running(product, ids)) == len(ids) == 2 * PARENTS
    await asyncio.gather(*(product.api.cancel(session) for session in parents))
    await nothing_runs(product, ids)
