"""What the longhaul can do: a registry of tools with typed arguments."""

from longhaul.tools.calculator import CALCULATOR
from longhaul.tools.clock import CURRENT_TIME
from longhaul.tools.files import LIST_FILES, READ_FILE, WRITE_FILE
from longhaul.tools.registry import Registry, Tool, ToolContext, ToolError, tool
from longhaul.tools.workflow_tools import GET_SUB_SESSION_RESULT, RUN_SUB_SESSION, WAIT


def default_tools() -> Registry:
    """The tools that come with Longhaul."""
    return Registry(
        [CALCULATOR, CURRENT_TIME, LIST_FILES, READ_FILE, WRITE_FILE, WAIT, RUN_SUB_SESSION, GET_SUB_SESSION_RESULT]
    )


__all__ = ["Registry", "Tool", "ToolContext", "ToolError", "default_tools", "tool"]
