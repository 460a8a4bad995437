"""A session that is deleted leaves nothing that goes on: no turn, no timer, no row."""

import asyncio

import pytest

from testkit.checks import stored
from testkit.product import Product
from testkit.wait import until
from tests.scenarios.sub_sessions import nothing_runs, say, sub_of
from tests.scenarios.support import start_working, until_asked

pytestmark = pytest.mark.backends("postgresql")
#: Longer than the tests wait for anything: a timer of this length that stays makes them fail.
LONG = "wait 250 s"


async def keep_posting(product: Product, session: str) -> None:
    """Post messages until the session is gone. The first that comes behind the Stop begins another turn."""

    async def gone() -> bool:
        return (await product.api.post(session, LONG)).status == 404

    await until(gone, what="the session is gone", every=0.005)


async def deleted(product: Product, session: str) -> None:
    assert (await product.api.call("DELETE", f"/sessions/{session}")).status == 204


async def nothing_is_left(product: Product, sessions: list[str]) -> None:
    await nothing_runs(product, sessions)
    found = await stored(product.database, sessions)
    assert (dict(found.messages), dict(found.turns)) == ({}, {})


async def test_waits_and_detached_sub_sessions(product: Product) -> None:
    session = await product.api.create_session()
    await say(product, session, f"delegate detached: ({LONG})")
    (sub_id,) = await sub_of(product, session)
    await start_working(product, session, LONG)
    await deleted(product, session)
    await nothing_is_left(product, [session, sub_id])


async def test_messages_that_come_during_the_deletion(product: Product) -> None:
    session = await product.api.create_session()
    await start_working(product, session, LONG)
    await asyncio.gather(keep_posting(product, session), deleted(product, session))
    await nothing_is_left(product, [session])


async def test_retries_of_a_model_call(product: Product) -> None:
    session = await product.api.create_session()
    await until_asked(product, await product.api.start(session, "hello [fault=status:503]"))
    await deleted(product, session)
    await nothing_is_left(product, [session])


async def test_a_sub_session_that_is_waited_for(product: Product) -> None:
    """Its parent goes on."""
    session = await product.api.create_session()
    turn = await product.api.start(session, f"delegate: {LONG}")
    (sub_id,) = await sub_of(product, session)
    await deleted(product, sub_id)
    assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
    await nothing_is_left(product, [sub_id])
