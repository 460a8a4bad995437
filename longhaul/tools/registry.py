"""Tools: a name, typed arguments, a JSON Schema for the model, and what may be assumed about running twice."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from longhaul.contracts import Scope
from longhaul.llm.failures import defect_of_arguments

SCHEMAS_MAX_CHARS = 32_000


class ToolError(Exception):
    """A tool's refusal or failure, in words for the model."""


@dataclass(frozen=True)
class ToolContext:
    """What a tool may know: whose session it works in, and the folder that is its own."""

    user_id: str
    session_id: str
    turn_id: str
    tool_call_id: str
    workspace: Path
    scope: Scope


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        run: does it; None for tools that the workflow performs itself (timers, sub-sessions).
        repeatable: whether it may run again when its worker died under it. If not, such a call ends as `lost`.
        changes: whether it has effects; a dry run only says what it would do.
        quick: whether it computes for some milliseconds and does nothing else. It then runs within the workflow task
            that asks for it, at a fraction of an activity's cost, and again whenever that task is done again.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    run: Callable[[Any, ToolContext], Awaitable[str]] | None
    repeatable: bool = True
    changes: bool = False
    quick: bool = False

    def __post_init__(self) -> None:
        if self.quick and (self.changes or not self.repeatable):
            raise ValueError(f"tool {self.name!r}: what changes something or must not run twice cannot be quick")

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The tool in the OpenAI shape; made once, for it takes longer than a turn's other preparations."""
        parameters = self.arguments.model_json_schema()
        parameters.pop("title", None)
        parameters.pop("description", None)
        for found in parameters.get("properties", {}).values():
            found.pop("title", None)
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }

    def parse(self, arguments: str) -> BaseModel:
        """The arguments the model wrote.

        Raises:
            ToolError: they do not fit; the text names the defect.
        """
        if defect := defect_of_arguments(arguments):
            raise ToolError(f"{self.name}: {defect}")
        try:
            return self.arguments.model_validate_json(arguments.strip() or "{}")
        except ValidationError as error:
            raise ToolError(f"{self.name}: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """A validation error in one line."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()[:5])


def tool(
    arguments: type[BaseModel],
    description: str,
    *,
    repeatable: bool = True,
    changes: bool = False,
    quick: bool = False,
) -> Callable[[Callable[[Any, ToolContext], Awaitable[str]]], Tool]:
    """Make a tool of an async function `(arguments, context) -> output`; its name is the function's."""

    def build(run: Callable[[Any, ToolContext], Awaitable[str]]) -> Tool:
        return Tool(run.__name__, description, arguments, run, repeatable, changes, quick)

    return build


class Registry:
    """The tools of a deployment, by name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def __iter__(self) -> Any:
        return iter(self._tools.values())

    def get(self, name: str, scope: Scope) -> Tool:
        """A tool that this scope may use.

        Raises:
            ToolError: there is none of that name, or it is not allowed here; the text says which ones are.
        """
        found = self._tools.get(name)
        if found is None or not allowed(name, scope):
            names = ", ".join(sorted(tool.name for tool in self.allowed(scope)))
            reason = "is not allowed in this session" if found else "does not exist"
            raise ToolError(f"The tool {name!r} {reason}. Available: {names}.")
        return found

    def is_quick(self, name: str) -> bool:
        """Whether there is a tool of this name that says of itself that it is quick."""
        found = self._tools.get(name)
        return found is not None and found.quick

    def allowed(self, scope: Scope) -> list[Tool]:
        return [tool for tool in self._tools.values() if allowed(tool.name, scope)]

    def schemas(self, scope: Scope) -> list[dict[str, Any]]:
        """The allowed tools in the OpenAI shape, always in the same order, so that prompts stay cached."""
        return [tool.schema for tool in self.allowed(scope)]


def allowed(name: str, scope: Scope) -> bool:
    return name not in scope.deny_tools and (scope.allow_tools is None or name in scope.allow_tools)
