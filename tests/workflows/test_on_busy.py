"""Messages that want a turn of their own while a turn runs, with fake activities."""

from longhaul.contracts import OpenTurn, TurnStatus
from tests.workflows.fakes import Session, final

COMPLETED = TurnStatus.COMPLETED


def opened(session: Session) -> list[OpenTurn]:
    return [one for one in session.arguments(OpenTurn) if isinstance(one, OpenTurn)]


def begun(session: Session) -> list[str]:
    """The turns that took messages, in order."""
    return list(dict.fromkeys(session.script.rows.taken.values()))


async def test_queued_messages_begin_turns_of_their_own_in_order(session: Session) -> None:
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    queued = [await session.queue("m2", model="large"), await session.queue("m3")]
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert begun(session) == [session.turn_id, *queued]
    assert [one.model for one in opened(session)] == ["model", "large", "large"], "a choice holds until the next one"
    assert session.calls.count("take_inbox m2") == 0, "a queued message is no follow-up"


async def test_a_message_that_joins_is_taken_before_those_that_are_queued(session: Session) -> None:
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    turn_id = await session.queue("m2")
    await session.send("m3")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert session.script.rows.taken == {"m1": session.turn_id, "m3": session.turn_id, "m2": turn_id}


async def test_signals_in_another_order_than_the_rows(session: Session) -> None:
    """Two senders at once: the rows say which message came first, so its turn begins first."""
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    rows = session.script.rows
    rows.queue("m2", "turn-2")
    rows.queue("m3", "turn-3")
    await session.send("m3")
    await session.send("m2")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert begun(session) == [session.turn_id, "turn-2", "turn-3"]


async def test_a_queued_message_whose_signal_never_comes_begins_before_the_next_one(session: Session) -> None:
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    session.script.rows.queue("m2", "turn-2")
    await session.queue("m3")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert begun(session)[:2] == [session.turn_id, "turn-2"]
    assert list(session.script.rows.taken) == ["m1", "m2", "m3"]


async def test_what_interrupts_comes_before_what_is_queued(session: Session) -> None:
    """As the API does it: the row is accepted, the turn is stopped, then the signal is sent."""
    session.script.hold("call_model 1")
    await session.send("m1")
    await session.script.reached("call_model 1")
    queued = await session.queue("m2")
    session.script.rows.stopped = session.turn_id
    session.script.rows.waiting["m3"] = "turn-3"
    await session.handle.cancel()
    await session.send("m3")
    await session.until_called("close_turn cancelled")
    session.script.release("call_model 1")
    assert await session.status() is COMPLETED
    assert begun(session) == [session.turn_id, "turn-3", queued]


async def test_a_turn_that_fails_lets_the_queue_go_on(session: Session) -> None:
    session.script.hold("call_model 1")
    session.script.failures["call_model 1"] = final("no")
    await session.send("m1")
    await session.script.reached("call_model 1")
    queued = await session.queue("m2")
    session.script.release("call_model 1")
    assert await session.status() is TurnStatus.FAILED
    assert begun(session) == [session.turn_id, queued]
    assert session.calls.count("close_turn failed") == 2
