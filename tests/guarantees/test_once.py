"""The same message, however often it comes, is one message of one turn."""

import asyncio
from uuid import uuid4

from testkit.checks import check_rows
from testkit.client import Answer, ApiClient
from testkit.product import Product

TIMES = 5


async def five_times(api: ApiClient, session: str, text: str, message_id: str) -> set[str]:
    """Post the same message five times at once; the turns that the answers name."""
    answers: list[Answer] = await asyncio.gather(*(api.post(session, text, message_id) for _ in range(TIMES)))
    assert [answer.status for answer in answers] == [202] * TIMES, answers
    assert {answer.body["message_id"] for answer in answers} == {message_id}
    return {answer.body["turn_id"] for answer in answers}


async def test_five_times_at_once_is_one_turn(product: Product) -> None:
    sessions = [await product.api.create_session() for _ in range(6)]
    ids = {session: str(uuid4()) for session in sessions}
    named = await asyncio.gather(*(five_times(product.api, session, "1+1", ids[session]) for session in sessions))
    for session, turns in zip(sessions, named, strict=True):
        assert len(turns) == 1, turns
        await product.api.wait_for_turn(session, next(iter(turns)))
    found = await check_rows(product.database, {session: [ids[session]] for session in sessions})
    for session, turns in zip(sessions, named, strict=True):
        assert [turn.turn_id for turn in found.turns[session]] == [*turns]
        assert len(found.of(session, "user")) == 1


async def test_five_times_into_a_running_turn(product: Product) -> None:
    session, first, second = await product.api.create_session(), str(uuid4()), str(uuid4())
    turn = await product.api.start(session, "wait 1 s", first)
    assert await five_times(product.api, session, "and 2+2", second) == {turn}
    await product.api.wait_for_turn(session, turn)
    found = await check_rows(product.database, {session: [first, second]})
    assert len(found.turns[session]) == 1


async def test_again_when_it_is_answered(product: Product) -> None:
    session, message_id = await product.api.create_session(), str(uuid4())
    turn = await product.api.start(session, "3*3", message_id)
    await product.api.wait_for_turn(session, turn)
    before = await product.api.messages(session)
    assert await five_times(product.api, session, "3*3", message_id) == {turn}
    assert await product.api.messages(session) == before
    found = await check_rows(product.database, {session: [message_id]})
    assert len(found.turns[session]) == 1
