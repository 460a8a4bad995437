"""Reading on in a tool result that was cut for the model."""

from pydantic import BaseModel, Field

from longhaul.tools.context import ToolContext, ToolError
from longhaul.tools.registry import tool

#: Characters of one call. Four calls read what a result may show at once, and each fits into a small window.
PART_CHARS = 20_000


class PartOfResult(BaseModel):
    tool_call_id: str = Field(max_length=200, description="As the note at the cut names it")
    offset: int = Field(0, ge=0, description="Character to read on from")


@tool(PartOfResult, "Read on in the result of an earlier tool call that was cut.")
async def read_tool_result(arguments: PartOfResult, context: ToolContext) -> str:
    result = await context.result_of(arguments.tool_call_id)
    if result is None:
        raise ToolError(f"This session has no result of a tool call {arguments.tool_call_id!r}.")
    if arguments.offset >= len(result):
        raise ToolError(f"That result ends at character {len(result)}.")
    end = arguments.offset + PART_CHARS
    part = result[arguments.offset : end]
    left = len(result) - end
    return part if left <= 0 else f"{part}\n[{left} more characters; read on with offset={end}]"
