"""Turns of many rounds: over many histories, and to the limit of rounds."""

from testkit.chaos.race import long_turn
from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.pool import MakeProduct


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
