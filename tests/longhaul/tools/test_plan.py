"""The copilot's plan: what is taken, and how it is shown."""

import pytest

from longhaul.contracts import PlanStep
from longhaul.streams.events import plan_part
from longhaul.tools import ToolContext, ToolError
from longhaul.tools.plan import plan_of, update_plan


async def run(arguments: str, context: ToolContext) -> str:
    assert update_plan.run is not None
    return await update_plan.run(update_plan.parse(arguments), context)


async def test_the_output_is_the_plan(context: ToolContext) -> None:
    output = await run('{"plan": [{"step": "look", "status": "completed"}, {"step": "leap"}]}', context)
    assert plan_of(output) == [PlanStep(step="look", status="completed"), PlanStep(step="leap", status="pending")]
    shown = [{"step": "look", "status": "completed"}, {"step": "leap", "status": "pending"}]
    assert plan_part(output) == {"type": "data-plan", "id": "plan", "data": {"plan": shown}}


@pytest.mark.parametrize(
    "arguments",
    [
        "{}",
        '{"plan": [{"step": "a", "status": "done"}]}',
        '{"plan": [{"step": "' + "x" * 501 + '"}]}',
        '{"plan": [' + ",".join(['{"step": "a"}'] * 51) + "]}",
        '{"plan": [{"step": "a", "status": "in_progress"}, {"step": "b", "status": "in_progress"}]}',
    ],
)
async def test_a_plan_that_cannot_be_shown_is_refused(arguments: str, context: ToolContext) -> None:
    with pytest.raises(ToolError):
        await run(arguments, context)


@pytest.mark.parametrize("output", ["", "[]", "{}", '{"plan": 5}', '{"plan": ["a"]}', "Dry run."])
def test_what_is_no_plan_shows_none(output: str) -> None:
    assert plan_of(output) == []
