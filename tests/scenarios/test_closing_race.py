"""Messages between the last text of a turn and the end of its workflow start the next turn."""

from uuid import uuid4

from longhaul.db.busy import OnBusy
from testkit.chaos.busy_race import busy_race
from testkit.chaos.race import race
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.product import Product

# On the database that most begin with; PostgreSQL takes the same code through fewer, for the sake of the minutes.
MESSAGES = {"sqlite": 300, "postgresql": 120}
BUSY_MESSAGES = {"sqlite": 90, "postgresql": 60}
TURNS = 15
#: The turn's row is final and its stream sealed some milliseconds before its run ends: aim there.


async def test_the_next_message_right_behind_the_stream_is_streamed(product: Product) -> None:
    """A client that has seen `finish` and writes again gets a stream and not 202."""
    session = await product.api.create_session()
    seen = []
    for number in range(TURNS):
        log = await product.api.stream(session, f"{number}+100")
        assert log.status == 200, f"message {number}: {log.status} {log.body}"
        assert str(number + 100) in check_stream(log).text()
        seen.append(log.turn_id)
    found = await check_rows(product.database, sessions=[session])
    assert [turn.turn_id for turn in found.turns[session]] == seen


async def test_the_turn_that_is_named_is_the_one_that_answers(product: Product) -> None:
    """Messages at the end of turns: the answer to a post names the turn that takes the message."""
    session = await product.api.create_session()
    named: dict[str, str] = {}
    for number in range(TURNS):
        log = await product.api.open(session, f"{number}+100")
        await log.until_seen("finish-step", 2 if log.log.status == 200 else 0)
        message_id = str(uuid4())
        named[message_id] = await product.api.start(session, "and then", message_id)
        await log.done()
        await product.api.until_idle(session)
    found = await check_rows(product.database, sessions=[session])
    took = {row.client_message_id: row.turn_id for row in found.of(session, "user")}
    assert {message: took[message] for message in named} == named


async def test_hundreds_at_the_end_of_turns(product: Product) -> None:
    """Five thousand of them: `make chaos ARGS="--race 5000"`."""
    messages = MESSAGES[product.backend]
    run, found = await race(product, messages=messages, sessions=6, seed=5)
    assert sum(len(ids) for ids in run.sent.values()) >= messages
    assert run.how["queued"] > 10, "no message joined a turn, so the race was never run"
    assert run.how["started"] > 10, "no message came after a turn, so the race was never run"
    assert all(turn.status == "completed" for turns in found.turns.values() for turn in turns)


async def test_every_on_busy_at_random_moments(product: Product) -> None:
    messages = BUSY_MESSAGES[product.backend]
    run, found = await busy_race(product, messages=messages, sessions=6, seed=7)
    assert sum(len(sent) for sent in run.sent.values()) + run.rejected == messages
    assert {on_busy for on_busy, _ in run.how} == set(OnBusy)
    assert run.rejected, "no message was rejected, so no turn was met"
    assert all(run.how[kind, "queued"] for kind in (OnBusy.JOIN, OnBusy.QUEUE)), "no turn was met"
    rows = [row for rows in found.messages.values() for row in rows]
    assert any(row.replaced_by for row in rows), "nothing was rolled back"


async def test_a_queued_message_is_streamed_when_its_turn_begins(product: Product) -> None:
    session = await product.api.create_session()
    first = await product.api.open(session, "wait 1 s")
    await first.until_seen("start")
    queued = await product.api.stream(session, "7+8", on_busy="queue")
    assert (queued.status, queued.turn_id) != (202, first.log.turn_id)
    assert "15" in check_stream(queued).text()
    assert "15" not in check_stream(await first.done()).text()
    turns = (await check_rows(product.database, sessions=[session])).turns[session]
    assert [turn.turn_id for turn in turns] == [first.log.turn_id, queued.turn_id]
