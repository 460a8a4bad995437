"""Messages at the last moments of turns, and turns that outgrow their history."""

import pytest

from testkit.chaos.race import long_turn, race
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct
from testkit.product import Product

# On the database that most begin with; PostgreSQL takes the same code through fewer, for the sake of the minutes.
MESSAGES = {"sqlite": 300, "postgresql": 120}


@pytest.mark.timeout(240)
async def test_hundreds_at_the_end_of_turns(product: Product) -> None:
    """Five thousand of them: `make chaos ARGS="--race 5000"`."""
    messages = MESSAGES[product.backend]
    run, found = await race(product, messages=messages, sessions=6, seed=5)
    assert sum(len(ids) for ids in run.sent.values()) >= messages
    assert run.how["queued"] > 10, "nobody joined a turn, so the race was never run"
    assert run.how["started"] > 10, "nobody came too late, so the race was never run"
    assert all(turn.status == "completed" for turns in found.turns.values() for turn in turns)


@pytest.mark.timeout(240)
async def test_sixty_rounds_over_many_histories(make_product: MakeProduct) -> None:
    """A thousand of them: `make chaos ARGS="--rounds 1000"`."""
    product = await make_product(settings={"LONGHAUL_CONTINUE_AS_NEW_EVENTS": "60"})
    figures = await long_turn(product, 60)
    assert figures["runs"] > 5


async def test_the_limit_of_rounds_ends_a_turn_in_words(make_product: MakeProduct) -> None:
    product = await make_product(settings={"LONGHAUL_MAX_ROUNDS": "3"})
    session = await product.api.create_session()
    log = check_stream(await product.api.stream(session, "rounds 10"))
    found = await check_rows(product.database)
    [turn] = found.turns[session]
    notice = found.of(session)[-1]
    assert (turn.status, notice.kind, notice.role) == ("completed", "notice", "assistant")
    assert "3" in notice.content
    assert log.text().endswith(notice.content)
    assert len([row for row in found.ledger if row.kind == "turn"]) == 3
    following = check_stream(await product.api.stream(session, "6*7"))
    assert "42" in following.text()
