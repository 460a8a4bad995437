"""A thousand messages at random moments: each stored once, each answered, never two turns of a session at once."""

import asyncio
import random
from collections import defaultdict
from uuid import UUID

import pytest

from tests.harness.checks import check_rows, stored
from tests.harness.client import Answer
from tests.harness.pool import MakeProduct
from tests.harness.product import Backend, Product
from tests.harness.wait import until

MESSAGES = 1_000
SESSIONS = 20
SECONDS = 20.0
TEXTS = ("hello", "2*3 and 4*5", "rounds 2", "7+8", "speak 30", "what time is it", "think: why")


async def until_at_rest(product: Product, sessions: list[str], limit: float) -> None:
    """Wait until no message of these sessions waits and no turn runs."""

    async def busy() -> bool:
        found = await stored(product.database, sessions)
        waiting = any(row.sequence is None for rows in found.messages.values() for row in rows)
        return not waiting and all(turn.ended_at is not None for turns in found.turns.values() for turn in turns)

    await until(busy, limit=limit, what="every message is placed and every turn has ended", every=0.5)


@pytest.mark.timeout(300)
async def test_a_thousand_messages(make_product: MakeProduct, backend: Backend) -> None:
    product = await make_product(backend, settings={"LONGHAUL_MAX_PENDING_MESSAGES": "0"})
    chance = random.Random(20261121)
    sessions = [await product.api.create_session() for _ in range(SESSIONS)]
    accepted: dict[str, set[str]] = defaultdict(set)
    answers: dict[str, int] = defaultdict(int)
    at_once = asyncio.Semaphore(40)

    async def send(number: int, moment: float) -> None:
        await asyncio.sleep(moment)
        session = chance.choice(sessions)
        message_id = str(UUID(int=chance.getrandbits(128), version=4))
        text = f"{chance.choice(TEXTS)} ({number})"

        async def accept() -> Answer | None:
            # A machine under this load may well say "not now"; then a client sends the same message again.
            async with at_once:
                answer = await product.api.post(session, text, message_id)
            assert answer.status in (202, 503), answer
            return answer if answer.status == 202 else None

        _, body = await until(accept, limit=120, what="a message is accepted", every=chance.uniform(0.5, 2))
        assert body["message_id"] == message_id
        accepted[session].add(message_id)
        answers[body["disposition"]] += 1

    moments = sorted(chance.uniform(0, SECONDS) for _ in range(MESSAGES))
    await asyncio.gather(*(send(number, moment) for number, moment in enumerate(moments)))
    await until_at_rest(product, sessions, limit=120)
    found = await check_rows(product.database, accepted)
    turns = sum(len(turns) for turns in found.turns.values())
    assert sum(len(ids) for ids in accepted.values()) == MESSAGES
    assert all(turn.status == "completed" for turns in found.turns.values() for turn in turns)
    assert answers["started"] > SESSIONS, "turns must have ended and begun again, or the race was never run"
    assert answers["queued"] > SESSIONS
    assert SESSIONS < turns <= MESSAGES
