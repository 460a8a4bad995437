"""Messages of every `on_busy` at random moments of short turns: none is lost, and each is where it wanted to be."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.engine import Row

from longhaul.db.busy import OnBusy
from testkit.checks import Stored, check_rows
from testkit.product import Product

MOMENT_S = 0.25  # a turn with one model call takes about so long
TEXTS = ("hello", "7+8", "speak 3", "3*4, then 5*6")


@dataclass(frozen=True)
class Sent:
    """An accepted message: what it wanted, and what its sender was told."""

    message_id: str
    on_busy: OnBusy
    turn_id: str
    disposition: str


@dataclass
class BusyRace:
    """The accepted messages of each session in the order of acceptance, and how many were rejected."""

    sent: dict[str, list[Sent]] = field(default_factory=lambda: defaultdict(list))
    rejected: int = 0
    how: Counter[tuple[OnBusy, str]] = field(default_factory=Counter)


async def busy_race(product: Product, *, messages: int, sessions: int, seed: int) -> tuple[BusyRace, Stored]:
    """Send so many messages; check that each is stored once, in the turn that its sender was told, and in its place.

    Raises:
        AssertionError: names everything that does not hold.
    """
    run = BusyRace()
    made = [await product.api.create_session() for _ in range(sessions)]
    async with asyncio.TaskGroup() as people:
        for number, session in enumerate(made):
            people.create_task(_person(product, run, session, messages // sessions, random.Random(f"{seed} {number}")))
    await asyncio.gather(*(product.api.until_idle(session, limit=90) for session in made))
    ids = {session: [one.message_id for one in sent] for session, sent in run.sent.items()}
    found = await check_rows(product.database, ids, answered=False)
    problems = [
        problem for session, sent in run.sent.items() for problem in _misplaced(sent, found.of(session), found, session)
    ]
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:30])
    return run, found


async def _person(product: Product, run: BusyRace, session: str, messages: int, chance: random.Random) -> None:
    for _ in range(messages):
        message_id, on_busy = str(UUID(int=chance.getrandbits(128), version=4)), chance.choice(list(OnBusy))
        body = {"message": chance.choice(TEXTS), "message_id": message_id, "on_busy": on_busy}
        status, answer = await product.api.call("POST", f"/sessions/{session}/messages", json=body)
        if status == 409 and on_busy is OnBusy.REJECT:
            assert answer["code"] == "busy", answer
            assert answer["running"][0]["session_id"] == session
            run.rejected += 1
        else:
            assert status == 202, (on_busy, answer)
            run.sent[session].append(Sent(message_id, on_busy, answer["turn_id"], answer["disposition"]))
            run.how[on_busy, answer["disposition"]] += 1
        await asyncio.sleep(chance.uniform(0, MOMENT_S))


def _misplaced(sent: Sequence[Sent], rows: Sequence[Row[Any]], found: Stored, session: str) -> list[str]:
    """What is not where its `on_busy` says."""
    by_id = {row.client_message_id: row for row in rows if row.client_message_id}
    started = {turn.turn_id: turn for turn in found.turns[session]}
    rollbacks = {one.turn_id for one in sent if one.on_busy is OnBusy.ROLLBACK}
    problems = []
    for one in sent:
        row = by_id[one.message_id]
        where = f"{session}: {one.on_busy} {one.message_id}"
        if row.turn_id != one.turn_id:
            problems.append(f"{where} was told turn {one.turn_id} and is in {row.turn_id}")
        if one.on_busy in (OnBusy.INTERRUPT, OnBusy.ROLLBACK) and row.round != 0:
            problems.append(f"{where} does not stand at the beginning of its turn, but in round {row.round}")
        if one.on_busy is OnBusy.QUEUE and row.sequence != min(r.sequence for r in rows if r.turn_id == row.turn_id):
            problems.append(f"{where} does not begin its turn")
    queued = [one.turn_id for one in sent if one.on_busy is OnBusy.QUEUE]
    if len(set(queued)) < len(queued):
        problems.append(f"{session}: two queued messages share a turn")
    if queued != sorted(queued, key=lambda turn_id: started[turn_id].started_at):
        problems.append(f"{session}: turns of queued messages did not begin in the order of acceptance")
    problems += [
        f"{session}: row {row.sequence} was taken out by turn {row.replaced_by}, which rolls nothing back"
        for row in rows
        if row.replaced_by is not None and row.replaced_by not in rollbacks
    ]
    for turn_id in {row.turn_id for row in rows if row.replaced_by not in (None, row.turn_id)}:
        if left := [row.sequence for row in rows if row.turn_id == turn_id and row.replaced_by is None]:
            problems.append(f"{session}: turn {turn_id} was rolled back, and rows {left} are left")
    return problems
