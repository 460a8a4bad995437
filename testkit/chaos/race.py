"""Messages aimed at the last moments of turns, and one turn of very many rounds."""

import asyncio
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from uuid import UUID

from testkit.checks import Stored, check_rows
from testkit.grammar import check_stream
from testkit.product import Product

AIM_S = 0.04  # after the last text; there the turn looks into its inbox for the last time and closes
TEXTS = ("hello", "7+8", "speak 5")


@dataclass
class Race:
    """The ids of all messages by session, in the order of acceptance, and what became of them."""

    sent: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    how: Counter[str] = field(default_factory=Counter)


async def race(product: Product, *, messages: int, sessions: int, seed: int) -> tuple[Race, Stored]:
    """Send so many messages, each at the end of a turn; check that each is stored once, in order, and answered.

    Raises:
        AssertionError: names everything that does not hold.
    """
    run = Race()
    made = [await product.api.create_session() for _ in range(sessions)]
    async with asyncio.TaskGroup() as people:
        for number, session in enumerate(made):
            people.create_task(_person(product, run, session, messages // sessions, random.Random(f"{seed} {number}")))
    await asyncio.gather(*(product.api.until_idle(session, limit=90) for session in made))
    found = await check_rows(product.database, run.sent)
    for session, ids in run.sent.items():
        placed = [row.client_message_id for row in found.of(session, "user")]
        assert placed == ids, f"{session}: not in order of acceptance"
    return run, found


async def _person(product: Product, run: Race, session: str, messages: int, chance: random.Random) -> None:
    def fresh() -> str:
        run.sent[session].append(str(UUID(int=chance.getrandbits(128), version=4)))
        return run.sent[session][-1]

    while len(run.sent[session]) < messages:
        live = await product.api.open(session, chance.choice(TEXTS), fresh())
        if live.log.status == 200:
            await live.until_seen("text-end", limit=60)
        else:  # it joined a turn; the end can be aimed at only where the stream is read from its beginning
            await product.api.wait_for_turn(session, live.log.headers["x-longhaul-turn-id"], limit=90)
        run.how["streamed" if live.log.status == 200 else "joined"] += 1
        for _ in range(chance.randint(1, 2)):
            await asyncio.sleep(chance.uniform(0, AIM_S))
            status, body = await product.api.post(session, "and this", fresh())
            assert status == 202, body
            run.how[body["disposition"]] += 1
        await live.cut()


async def long_turn(product: Product, rounds: int) -> dict[str, float]:
    """One turn of so many rounds, polled and streamed all the time, with a follow-up in its middle.

    Raises:
        AssertionError: names what does not hold.
    """
    api, session = product.api, await product.api.create_session()
    began = time.monotonic()
    live = await api.open(session, f"rounds {rounds}")
    await live.until_seen("start")
    turn, seen, half = live.log.turn_id, [0], 0.0
    while True:
        progress = await api.progress(session, turn)
        assert progress["turn_id"] == turn
        assert progress["round"] >= seen[-1], "the progress went back"
        seen.append(progress["round"])
        if progress["status"] != "running":
            break
        if not half and progress["round"] >= rounds // 2:
            half = time.monotonic() - began
            assert await api.start(session, "still there?") == turn
        await asyncio.sleep(0.05)
    whole = time.monotonic() - began
    assert (progress["status"], progress["error"]) == ("completed", None)
    log = check_stream(await live.done(60))
    found = await check_rows(product.database, sessions=[session])
    answers = found.of(session, "assistant")
    assert len({row.round for row in answers}) == len(answers) >= rounds
    assert len(found.of(session, "user")) == 2
    assert log.text() == "".join(row.content for row in answers)
    assert [row.turn_id for row in found.turns[session]] == [turn]
    client = await product.temporal()
    runs = [one.run_id async for one in client.list_workflows(f"WorkflowId='turn:{session}'")]
    return {"rounds": len(answers), "runs": len(runs), "first half": half, "second half": whole - half}
