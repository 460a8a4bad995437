"""What the copilot can do: a registry of tools with typed arguments."""

from copilot.tools.calculator import CALCULATOR
from copilot.tools.clock import CURRENT_TIME
from copilot.tools.files import LIST_FILES, READ_FILE, WRITE_FILE
from copilot.tools.flow import GET_SUB_SESSION_RESULT, RUN_SUB_SESSION, WAIT
from copilot.tools.registry import Registry, Tool, ToolContext, ToolError, tool


def default_tools() -> Registry:
    """The tools that come with Longhaul."""
    return Registry(
        [CALCULATOR, CURRENT_TIME, LIST_FILES, READ_FILE, WRITE_FILE, WAIT, RUN_SUB_SESSION, GET_SUB_SESSION_RESULT]
    )


__all__ = ["Registry", "Tool", "ToolContext", "ToolError", "default_tools", "tool"]
