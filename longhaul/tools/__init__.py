"""What a copilot can do: a registry of tools with typed arguments. Tools of your own import from here."""

from longhaul.tools.ask_user import ask_user
from longhaul.tools.context import NotConnectedError, ToolContext, ToolError
from longhaul.tools.files import edit_file, list_files, read_file, write_file
from longhaul.tools.plan import update_plan
from longhaul.tools.quick import calculator, current_time
from longhaul.tools.registry import Registry, Tool, tool
from longhaul.tools.results import read_tool_result
from longhaul.tools.share import share_file
from longhaul.tools.workflow_tools import get_sub_session_result, run_sub_session, wait


def default_tools() -> Registry:
    """The tools that come with Longhaul."""
    return Registry(
        [
            calculator,
            current_time,
            list_files,
            read_file,
            write_file,
            edit_file,
            share_file,
            read_tool_result,
            wait,
            update_plan,
            ask_user,
            run_sub_session,
            get_sub_session_result,
        ]
    )


__all__ = ["NotConnectedError", "Registry", "Tool", "ToolContext", "ToolError", "default_tools", "tool"]
