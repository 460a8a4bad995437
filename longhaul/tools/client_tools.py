"""Tools that a client declares with a message and runs itself; the model calls them like any other."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from longhaul.contracts import PLAN_TOOL, SHARE_TOOL, Scope
from longhaul.tools.ask_user import ask_user
from longhaul.tools.registry import allowed
from longhaul.tools.workflow_tools import WORKFLOW_TOOLS

#: Names that no client may take: the workflow performs these tools, or their results are shown in a way of their own.
RESERVED_NAMES = frozenset((*WORKFLOW_TOOLS, ask_user.name, PLAN_TOOL, SHARE_TOOL))


class ClientTool(NamedTuple):
    """A tool of a client. `parameters`: the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in the OpenAI shape."""
        return {"type": "function", "function": self._asdict()}


def offered(tools: Sequence[ClientTool], scope: Scope) -> dict[str, ClientTool]:
    """The tools by name that a session may use. A dry run has none: what a client's tool changes is not known."""
    return {} if scope.dry_run else {tool.name: tool for tool in tools if allowed(tool.name, scope)}


def schemas_with(schemas: Sequence[dict[str, Any]], tools: dict[str, ClientTool]) -> list[dict[str, Any]]:
    """Schemas in the OpenAI shape, and those of a client's tools, which replace tools of the same name."""
    ours = [schema for schema in schemas if schema["function"]["name"] not in tools]
    return [*ours, *(tool.schema for tool in tools.values())]
