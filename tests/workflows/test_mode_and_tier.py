"""Mode and tier: a follow-up's own hold from the next model call on; a turn that follows has those of its message."""

from typing import Any

from longhaul.contracts import CallModel, OpenTurn, TurnLimits, TurnStatus
from tests.workflows.fakes import Session, final, tool_calls

FAST: dict[str, Any] = {"model": "small", "mode": "fast", "tier": "standard"}
THOROUGH: dict[str, Any] = {"model": "large", "mode": "extended_thinking", "tier": "advanced"}


def used(session: Session, kind: type[OpenTurn] | type[CallModel]) -> list[tuple[str, str]]:
    """Model and mode of the calls of one kind."""
    arguments = session.arguments(kind)
    return [(one.model, one.mode) for one in arguments if isinstance(one, OpenTurn | CallModel)]


async def send_during_tools(session: Session, limits: TurnLimits | None = None, **options: Any) -> None:
    """A turn with tools that a follow-up joins, up to its end."""
    session.script.answers = [tool_calls("a")]
    session.script.hold("run_tool a")
    await session.send("m1", limits, **FAST)
    await session.script.reached("run_tool a")
    await session.send("m2", limits, **options)
    session.script.release("run_tool a")
    assert await session.status() is TurnStatus.COMPLETED


async def test_a_follow_up_that_chooses_both(session: Session) -> None:
    await send_during_tools(session, **THOROUGH, chosen=("mode", "tier"))
    assert used(session, CallModel) == [("small", "fast"), ("large", "extended_thinking")]
    [stored] = session.script.ends
    assert stored.model == "large"


async def test_mode_and_tier_are_independent(session: Session) -> None:
    await send_during_tools(session, **THOROUGH, chosen=("tier",))
    assert used(session, CallModel) == [("small", "fast"), ("large", "fast")]


async def test_a_follow_up_that_chooses_nothing(session: Session) -> None:
    await send_during_tools(session, **THOROUGH)
    assert used(session, CallModel) == [("small", "fast"), ("small", "fast")]


async def test_a_follow_ups_effort(session: Session) -> None:
    await send_during_tools(session, TurnLimits(continue_as_new_events=1), **THOROUGH, effort="max", chosen=("mode",))
    efforts = [call.effort for call in session.arguments(CallModel) if isinstance(call, CallModel)]
    assert efforts == ["", "max"]


async def test_a_mode_that_is_chosen_ends_the_effort_of_the_turn(session: Session) -> None:
    session.script.answers = [tool_calls("a")]
    session.script.hold("run_tool a")
    await session.send("m1", **THOROUGH, effort="low")
    await session.script.reached("run_tool a")
    await session.send("m2", **FAST, chosen=("mode",))
    session.script.release("run_tool a")
    assert await session.status() is TurnStatus.COMPLETED
    calls = [call for call in session.arguments(CallModel) if isinstance(call, CallModel)]
    assert [(call.mode, call.effort) for call in calls] == [("extended_thinking", "low"), ("fast", "")]


async def test_the_choice_survives_continue_as_new(session: Session) -> None:
    await send_during_tools(session, TurnLimits(continue_as_new_events=1), **THOROUGH, chosen=("mode", "tier"))
    assert used(session, CallModel) == [("small", "fast"), ("large", "extended_thinking")]


async def test_the_next_turn_has_those_of_its_own_message(session: Session) -> None:
    """Also when it begins by continue-as-new, from a message that chose nothing."""
    session.script.hold("call_model 1")
    await session.send("m1", **THOROUGH, chosen=("mode", "tier"))
    await session.script.reached("call_model 1")
    await session.stop()
    await session.send("m2", **FAST)
    session.script.release("call_model 1")
    assert await session.status() is TurnStatus.COMPLETED
    assert used(session, OpenTurn) == used(session, CallModel) == [("large", "extended_thinking"), ("small", "fast")]


async def test_a_fallback_that_answered_is_asked_first_until_another_model_is_chosen(session: Session) -> None:
    """Also behind continue-as-new; the chosen model stays the one of the turn."""
    spare = {"fallback": "spare"}
    session.script.answers = [tool_calls("a").model_copy(update=spare), tool_calls("b").model_copy(update=spare)]
    session.script.hold("run_tool b")
    await session.send("m1", TurnLimits(continue_as_new_events=1), **FAST)
    await session.script.reached("run_tool b")
    await session.send("m2", **THOROUGH, chosen=("tier",))
    session.script.release("run_tool b")
    assert await session.status() is TurnStatus.COMPLETED
    calls = [one for one in session.arguments(CallModel) if isinstance(one, CallModel)]
    assert [(call.model, call.fallback) for call in calls] == [("small", ""), ("small", "spare"), ("large", "")]
    assert [call.progress.model for call in calls if call.progress] == ["small", "spare", "large"]


async def test_a_follow_up_that_its_turn_could_not_take(session: Session) -> None:
    """The turn fails before it takes the message, which then begins the next turn with what it chose."""
    session.script.failures["call_model 1"] = final("the model is gone")
    session.script.hold("call_model 1")
    await session.send("m1", **FAST)
    await session.script.reached("call_model 1")
    await session.send("m2", **THOROUGH, chosen=("mode", "tier"))
    session.script.hold("close_turn failed")
    session.script.release("call_model 1")
    await session.script.reached("close_turn failed")
    del session.script.failures["call_model 1"]
    session.script.release("close_turn failed")
    assert await session.status() is TurnStatus.COMPLETED
    assert used(session, OpenTurn) == used(session, CallModel) == [("small", "fast"), ("large", "extended_thinking")]
