"""Showing a file of the workspace to the person."""

from pydantic import BaseModel, Field

from longhaul.contracts import SHARE_TOOL
from longhaul.tools.context import ToolContext
from longhaul.tools.registry import tool


class ShareFile(BaseModel):
    path: str = Field(max_length=500, description="File, relative to the workspace")


@tool(
    ShareFile,
    "Show a file of the workspace to the person, as it is now: a part of your message, with a link to download it.",
    changes=True,
    repeatable=True,
    name=SHARE_TOOL,
    would="show {path}",
)
async def share_file(arguments: ShareFile, context: ToolContext) -> str:
    return (await context.share(arguments.path)).model_dump_json()
