"""The same message many times, and a thousand at random moments: each is stored once, and answered in one turn."""

import asyncio
import random
from uuid import UUID, uuid4

from sqlalchemy import exists, select

from longhaul.db.models import MessageRow, TurnRow
from testkit.checks import check_rows
from testkit.client import Answer, RecordingClient
from testkit.pool import MakeProduct
from testkit.product import Backend, Product
from testkit.wait import until

TIMES = 5
# On the database that most begin with; PostgreSQL takes the same code through fewer, for the sake of the minutes.
MESSAGES = {"sqlite": 1_000, "postgresql": 200}
SESSIONS = 20
TEXTS = ("hello", "2*3 and 4*5", "rounds 2", "7+8", "speak 30", "what time is it", "think: why")


async def five_times(api: RecordingClient, session: str, text: str, message_id: str) -> set[str]:
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


async def until_at_rest(product: Product, sessions: list[str], every: float = 0.5) -> None:
    """Wait until no message of these sessions waits and no turn runs, as the rows tell."""
    waiting = exists().where(MessageRow.session_id.in_(sessions), MessageRow.sequence.is_(None))
    running = exists().where(TurnRow.session_id.in_(sessions), TurnRow.ended_at.is_(None))
    either = select(waiting | running)

    async def at_rest() -> bool:
        async with product.database.read() as connection:
            return not await connection.scalar(either)

    await until(at_rest, what="every message is placed and every turn has ended", every=every)


class Person:
    """Writes to one session: now and then several messages at once, now and then just when a turn has ended."""

    def __init__(self, product: Product, session: str, seed: int) -> None:
        self._product = product
        self._session = session
        self._chance = random.Random(seed)
        self.accepted: list[str] = []
        self.started = 0

    async def write(self, messages: int) -> None:
        chance = self._chance
        while messages:
            burst = min(messages, chance.choice((1, 1, 2, 5, 10)))
            await asyncio.gather(*(self._send(number) for number in range(messages, messages - burst, -1)))
            messages -= burst
            if chance.random() < 0.5:
                await until_at_rest(self._product, [self._session], every=0.05)
            await asyncio.sleep(chance.expovariate(10))

    async def _send(self, number: int) -> None:
        message_id = str(UUID(int=self._chance.getrandbits(128), version=4))
        text = f"{self._chance.choice(TEXTS)} ({number})"

        async def accept() -> Answer | None:
            # A machine under this load may well say "not now"; then a client sends the same message again.
            answer = await self._product.api.post(self._session, text, message_id)
            assert answer.status in (202, 503), answer
            return answer if answer.status == 202 else None

        _, body = await until(accept, what="a message is accepted", every=1)
        assert body["message_id"] == message_id
        self.accepted.append(message_id)
        self.started += body["disposition"] == "started"


async def test_a_thousand_messages(make_product: MakeProduct, backend: Backend) -> None:
    messages = MESSAGES[backend]
    product = await make_product(backend=backend, settings={"LONGHAUL_MAX_PENDING_MESSAGES": "0"})
    sessions = [await product.api.create_session() for _ in range(SESSIONS)]
    people = {session: Person(product, session, seed) for seed, session in enumerate(sessions)}
    await asyncio.gather(*(person.write(messages // SESSIONS) for person in people.values()))
    await until_at_rest(product, sessions)
    found = await check_rows(product.database, {session: person.accepted for session, person in people.items()})
    turns = [turn for turns in found.turns.values() for turn in turns]
    assert sum(len(person.accepted) for person in people.values()) == messages
    assert {turn.status for turn in turns} == {"completed"}
    # The races were run: turns ended and began again, and messages met running ones.
    assert sum(person.started for person in people.values()) > 2 * SESSIONS
    assert 2 * SESSIONS < len(turns) < messages
