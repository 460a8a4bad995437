"""The moment between a turn's last word and the end of its workflow: a message that comes then starts the next turn."""

from uuid import uuid4

from testkit.checks import check_rows
from testkit.grammar import check_stream
from testkit.product import Product

TURNS = 15
#: The turn's row is final and its stream sealed some milliseconds before its run ends: aim there.


async def test_the_next_message_right_behind_the_stream_is_streamed(product: Product) -> None:
    """Whoever has seen `finish` and writes again gets a stream, not word that something runs."""
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
    """Messages at the end of turns: the turn that a program is told to poll must be the one that took its message."""
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
