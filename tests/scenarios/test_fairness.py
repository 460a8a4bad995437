"""Many turns of one user do not delay another user's: Temporal takes the users' tasks in turn."""

import asyncio
from collections.abc import Mapping

import jwt
from temporalio.api.enums.v1 import PendingActivityState

from testkit.checks import check_rows
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.wait import until
from tests.scenarios.support import run_of

SECRET = "a secret that only this test knows, long enough"
MANY = 40


def token_of(user: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {jwt.encode({'sub': user, 'exp': 2**32}, SECRET, 'HS256')}"}


async def until_called(product: Product, session: str) -> None:
    """Wait until a session's model call waits for a worker, or runs."""
    handle = await run_of(product, session)
    waiting = (
        PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED,
        PendingActivityState.PENDING_ACTIVITY_STATE_STARTED,
    )

    async def called() -> bool:
        described = await handle.describe()
        return any(one.state in waiting for one in described.raw_description.pending_activities)

    await until(called, what=f"the model is to be called for session {session}", every=0.05)


async def test_one_slot_and_forty_calls_of_another_user(make_product: MakeProduct) -> None:
    """The call that is queued last is made after a few of the forty that were queued before, not behind them all."""
    settings = {
        "LONGHAUL_AUTH": "jwt",
        "LONGHAUL_JWT_SECRET": SECRET,
        "LONGHAUL_MAX_CONCURRENT_ACTIVITIES": "1",
        "LONGHAUL_MODEL_SMALL": "",
    }
    product = await make_product(own_model=True, settings=settings)
    greedy, modest = (product.client(headers=token_of(user)) for user in ("greedy", "modest"))
    with product.servers.model.paused():
        sessions = await asyncio.gather(*(greedy.create_session() for _ in range(MANY)))
        await asyncio.gather(*(greedy.start(session, "hello") for session in sessions))
        await asyncio.gather(*(until_called(product, session) for session in sessions))
        last = await modest.create_session()
        turn = await modest.start(last, "hello")
        await until_called(product, last)
    await modest.wait_for_turn(last, turn)
    for session in sessions:
        await greedy.until_idle(session)
    found = await check_rows(product.database)
    answered_at = {session: found.of(session, "assistant")[0].created_at for session in (*sessions, last)}
    before = sum(1 for session in sessions if answered_at[session] < answered_at[last])
    # One call runs, one is already on its way to the worker, and then it is the other user's turn.
    assert before <= 5, f"{before} of {MANY} calls that were queued before were made first"
