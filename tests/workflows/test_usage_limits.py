"""Limits of costs where a workflow starts a turn: the next turn of its session, and a sub-session."""

from longhaul.contracts import CostLimits, OpenTurn, PrepareSubSession, TurnLimits, TurnStatus, Usage
from tests.workflows.fakes import Session, final, tool_calls

LIMITS = TurnLimits(daily_cost_limit=7, weekly_cost_limit=9)
REFUSAL = "Your usage has reached the limit of this day."


def opened(session: Session) -> list[CostLimits]:
    """The limits that each turn was asked to check when it opened."""
    return [one.cost_limits for one in session.arguments(OpenTurn) if isinstance(one, OpenTurn)]


async def test_a_follow_up_that_begins_the_next_turn_over_the_limit(session: Session) -> None:
    """It was accepted without a look at the limit, for a turn that fails before it takes it."""
    session.script.hold("call_model 1")
    session.script.failures["call_model 1"] = final("broken")
    session.script.refusal = REFUSAL
    await session.send("m1", LIMITS)
    await session.script.reached("call_model 1")
    await session.send("m2", LIMITS)
    session.script.release("call_model 1")
    assert await session.status() is TurnStatus.FAILED
    first = ["open_turn m1", "call_model 1", "close_turn failed"]
    assert session.calls == [*first, "open_turn m2", "close_turn failed"], "the second turn asks no model"
    assert session.closing().progress.error == REFUSAL
    assert opened(session) == [CostLimits(), CostLimits(daily=7, weekly=9)], "who starts a turn has looked already"
    assert session.script.rows.taken.keys() == {"m1", "m2"}


async def test_a_sub_session_is_prepared_with_the_limits(session: Session) -> None:
    session.script.answers = [tool_calls("run_sub_session", arguments='{"prompt": "x"}')]
    session.script.prepared = session.script.prepared.model_copy(update={"error": f"nothing was started. {REFUSAL}"})
    await session.send("m1", LIMITS)
    assert await session.status() is TurnStatus.COMPLETED
    [prepared] = session.arguments(PrepareSubSession)
    assert isinstance(prepared, PrepareSubSession)
    assert prepared.cost_limits == LIMITS.cost
    assert "store_tool_result run_sub_session" in session.calls


async def test_prices_of_tools_are_in_the_usage_of_a_running_turn(session: Session) -> None:
    session.script.answers = [tool_calls("search", "fetch")]
    session.script.tool_cost = 40
    session.script.hold("call_model 2")
    await session.send("m1")
    await session.script.reached("call_model 2")
    assert (await session.progress()).usage == Usage(calls=1, cost_microdollars=80)
    session.script.release("call_model 2")
    assert await session.status() is TurnStatus.COMPLETED
