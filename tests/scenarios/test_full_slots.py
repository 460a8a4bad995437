"""More turns than a worker has slots for calls: Stop answers, messages are taken, the other turns get their slot."""

import asyncio

from testkit.checks import check_rows
from testkit.pool import ProductOptions
from testkit.product import Product
from testkit.wait import until

SLOTS, TURNS = 4, 6
PRODUCT: ProductOptions = {"settings": {"LONGHAUL_MAX_CONCURRENT_ACTIVITIES": str(SLOTS)}}


async def asked(product: Product, turns: list[str]) -> list[str]:
    """The turns for which the model was asked."""
    calls = (await product.servers.model.stats())["by_key"]
    return [turn for turn in turns if f"{turn}:1" in calls]


async def test_six_turns_on_four_slots(product: Product) -> None:
    api = product.api
    sessions = [await api.create_session() for _ in range(TURNS)]
    turns = [await api.start(session, "speak 100000 [delay=50]") for session in sessions]
    session_of = dict(zip(turns, sessions, strict=True))

    async def full() -> list[str] | None:
        found = await asked(product, turns)
        return found if len(found) == SLOTS else None

    speaking = await until(full, what="all slots are taken")
    queued = [turn for turn in turns if turn not in speaking]
    for turn in queued:
        progress = await api.progress(session_of[turn], turn)
        assert (progress["status"], progress["round"]) == ("running", 1), "a turn without a slot is shown all the same"
        assert await api.start(session_of[turn], "a follow-up") == turn
    assert await asked(product, turns) == speaking

    stopped_in_queue = await api.cancel(session_of[queued[0]])
    assert stopped_in_queue.body["status"] == "cancelled", "Stop waits for a slot"
    stopped = await api.cancel(session_of[speaking[0]])
    assert stopped.body["status"] == "cancelled"

    async def got_on() -> bool:
        return queued[1] in await asked(product, turns)

    await until(got_on, what="the turn that waited gets the free slot")
    left = [session_of[turn] for turn in turns if turn not in (queued[0], speaking[0])]
    answers = await asyncio.gather(*(api.cancel(session) for session in left))
    assert {answer.body["status"] for answer in answers} == {"cancelled"}
    await check_rows(product.database, sessions=sessions, answered=False)
