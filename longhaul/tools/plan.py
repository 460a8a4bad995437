"""The copilot's list of steps, for the people who watch it work."""

from pydantic import BaseModel, Field

from longhaul.contracts import PLAN_TOOL, PlanStep
from longhaul.tools.context import ToolContext, ToolError
from longhaul.tools.registry import tool

STEPS_MAX = 50


class Plan(BaseModel):
    """The output of `update_plan`, from which rows, streams and polls show the plan."""

    plan: list[PlanStep] = Field(max_length=STEPS_MAX, description="All steps in order, also those that are done")


@tool(
    Plan,
    "Show the person your plan for work of several steps, and keep it up to date as you go: the whole list each time, "
    "with at most one step in progress.",
    name=PLAN_TOOL,
    quick=True,
)
async def update_plan(arguments: Plan, context: ToolContext) -> str:  # noqa: ARG001
    if sum(step.status == "in_progress" for step in arguments.plan) > 1:
        raise ToolError("At most one step can be in progress.")
    return arguments.model_dump_json()


def plan_of(output: str) -> list[PlanStep]:
    """The steps in an output of `update_plan`; none if it is not one."""
    try:
        return Plan.model_validate_json(output).plan
    except ValueError:
        return []
