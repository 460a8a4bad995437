"""The endpoint keeps its own bill. The ledger says the same to the microdollar wherever the endpoint told its usage."""

import asyncio
from collections import Counter, defaultdict
from typing import Any

from sqlalchemy.engine import Row

from testkit.checks import check_rows
from testkit.pool import ProductOptions
from testkit.product import Product
from testkit.wait import until

PRODUCT: ProductOptions = {
    "own_model": True,
    "workers": 2,
    "settings": {
        # The endpoint's own prices are those of this model in our table, which estimates use.
        "LONGHAUL_MODEL_STANDARD": "gpt-4.1-mini",
        "LONGHAUL_MODEL_BACKOFF_BASE": "0.05",
        "LONGHAUL_MODEL_IDLE_TIMEOUT": "2",
    },
}
TURNS = (
    "6*7",
    "rounds 3",
    "think: speak 40",
    "speak 60 [fault=cut:20 times=2]",
    "6*7 [fault=badchunk:3 times=1 round=2]",
    "speak 30 [fault=silence:30:10 times=1]",
    "hello [fault=status:503 times=2]",
    "delegate: (speak 20 [fault=cut:9 times=1]); (rounds 2)",
)
STOPPED = "speak 400 [delay=20]"


def key_of(row: Row[Any]) -> str:
    return f"title:{row.turn_id}" if row.kind == "title" else f"{row.turn_id}:{row.round}"


async def use(product: Product, first: int) -> None:
    """One session: some turns, and one that is stopped while it writes."""
    session = await product.api.create_session()
    for text in (*TURNS[first:], *TURNS[:first])[:5]:
        turn = await product.api.start(session, text)
        await product.api.wait_for_turn(session, turn)
    live = await product.api.open(session, STOPPED)
    await live.until_seen("text-delta", 3)
    await product.api.cancel(session)
    await live.done()


async def test_the_ledger_says_what_the_endpoint_bills(product: Product) -> None:
    await asyncio.gather(*(use(product, first) for first in range(8)))

    async def idle() -> bool:
        return bool((await product.servers.model.stats())["in_flight"] == 0)

    await until(idle, what="the endpoint has seen the end of every call")
    found = await check_rows(product.database, answered=False)
    booked, estimated = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    for row in found.ledger:
        (booked if row.status == "booked" else estimated)[key_of(row)].append(row.cost_microdollars)
    billed = defaultdict[str, list[int]](list)
    told = defaultdict[str, list[int]](list)
    for call in await product.servers.model.bill():
        billed[call["key"]].append(call["microdollars"])
        if call["usage_sent"]:
            told[call["key"]].append(call["microdollars"])
    assert len(found.turns) > 8
    assert sum(map(len, booked.values())) > 60
    assert sum(map(len, estimated.values())) > 15
    for key, costs in booked.items():
        assert not Counter(costs) - Counter(told[key]), f"{key}: the endpoint billed {told[key]}"
    rows = {key: len(booked[key]) + len(estimated[key]) for key in {*booked, *estimated}}
    assert rows == {key: len(costs) for key, costs in billed.items()}, "each billed call has one row"
    unknown = sum(sum(billed[key]) - sum(booked[key]) for key in billed)
    guessed = sum(map(sum, estimated.values()))
    assert abs(guessed / unknown - 1) < 0.25, f"estimated {guessed}, billed {unknown}"
