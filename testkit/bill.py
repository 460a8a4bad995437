"""The endpoint's own bill against the ledger: turns with faults, each session with one that is stopped."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Row

from testkit.checks import check_rows
from testkit.product import Product
from testkit.wait import until

SETTINGS = {
    # The endpoint's own prices are those of this model in our table, which estimates use.
    "LONGHAUL_MODEL_STANDARD": "gpt-4.1-mini",
    "LONGHAUL_MODEL_BACKOFF_BASE": "0.05",
    "LONGHAUL_MODEL_IDLE_TIMEOUT": "2",
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


@dataclass(frozen=True)
class Comparison:
    """How ledger and bill compare. Money in microdollars.

    `booked`, `estimated`: rows of the ledger. `billed`: calls of the endpoint. `wrong`: rows whose cost the endpoint
    has not told, by call. `doubled`: calls with more rows than the endpoint billed. `without_row`: calls without a row.
    `guessed`, `unknown`: what the estimates say, and what the calls cost that they stand for.
    """

    turns: int
    booked: int
    estimated: int
    billed: int
    wrong: list[str]
    doubled: list[str]
    without_row: int
    guessed: int
    unknown: int


async def use(product: Product, texts: Sequence[str]) -> None:
    """One session: these turns, and one that is stopped while it writes."""
    session = await product.api.create_session()
    for text in texts:
        turn = await product.api.start(session, text)
        await product.api.wait_for_turn(session, turn)
    live = await product.api.open(session, STOPPED)
    await live.until_seen("text-delta", 3)
    await product.api.cancel(session)
    await live.done()


def _key_of(row: Row[Any]) -> str:
    return f"title:{row.turn_id}" if row.kind == "title" else f"{row.turn_id}:{row.round}"


async def compare(product: Product) -> Comparison:
    """Compare all that was booked with all that was billed, once the endpoint has seen the end of every call."""

    async def idle() -> bool:
        return bool((await product.servers.model.stats())["in_flight"] == 0)

    await until(idle, what="the endpoint has seen the end of every call")
    found = await check_rows(product.database, answered=False)
    booked, estimated = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    for row in found.ledger:
        (booked if row.status == "booked" else estimated)[_key_of(row)].append(row.cost_microdollars)
    billed, told = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    for call in await product.servers.model.bill():
        billed[call["key"]].append(call["microdollars"])
        if call["usage_sent"]:
            told[call["key"]].append(call["microdollars"])
    rows = {key: len(booked[key]) + len(estimated[key]) for key in {*booked, *estimated}}
    missing = {key: len(costs) - rows.get(key, 0) for key, costs in billed.items()}
    # Of a key whose rows are as many as its calls, the estimates stand for what was not booked.
    whole = [key for key, count in missing.items() if not count]
    return Comparison(
        turns=sum(map(len, found.turns.values())),
        booked=sum(map(len, booked.values())),
        estimated=sum(map(len, estimated.values())),
        billed=sum(map(len, billed.values())),
        wrong=[f"{key}: {costs}" for key, costs in booked.items() if Counter(costs) - Counter(told[key])],
        doubled=[key for key, count in rows.items() if count > len(billed[key])],
        without_row=sum(max(0, count) for count in missing.values()),
        guessed=sum(sum(estimated[key]) for key in whole),
        unknown=sum(sum(billed[key]) - sum(booked[key]) for key in whole),
    )


async def use_all(product: Product, sessions: Sequence[Sequence[str]]) -> Comparison:
    """All these sessions at once, then the comparison."""
    await asyncio.gather(*(use(product, texts) for texts in sessions))
    return await compare(product)
