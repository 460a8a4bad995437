"""Tools: a name, typed arguments, a JSON Schema for the model, and whether a call may run twice.

`LONGHAUL_TOOLS=module:name` names a `Registry` of your own, or a function that returns one.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from longhaul.contracts import Scope
from longhaul.settings import named_object, not_allowed

SCHEMAS_MAX_CHARS = 32_000


class ToolError(Exception):
    """A tool's refusal or failure; its text is written for the model and is stored as the call's result."""


async def _no_result(tool_call_id: str) -> str | None:  # noqa: ARG001
    return None


@dataclass(frozen=True)
class ToolContext:
    """What a tool knows about its call: user, session, turn, the session's folder, and what the session may do.

    `workspace` is shared with the session's root and all its sub-sessions; `workspace_max_bytes` (0: no limit) is what
    its files may take together. `result_of` reads the whole output of an earlier tool call of this session by its id;
    None if there is none.
    """

    user_id: str
    session_id: str
    turn_id: str
    tool_call_id: str
    workspace: Path
    scope: Scope
    workspace_max_bytes: int = 0
    result_of: Callable[[str], Awaitable[str | None]] = _no_result


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        run: the function; None for tools that the workflow performs itself (timers, sub-sessions).
        repeatable: whether a call may run again after its worker died. If not, such a call ends as `lost`.
        changes: whether it has side effects; a dry run does not run it.
        quick: whether it only computes, for some milliseconds. It then runs within the workflow task that asks for
            it, at a fraction of an activity's cost, and runs again whenever that task is repeated.
        needs_approval: whether a person has to allow each call.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    run: Callable[[Any, ToolContext], Awaitable[str]] | None
    repeatable: bool = True
    changes: bool = False
    quick: bool = False
    needs_approval: bool = False

    def __post_init__(self) -> None:
        if self.quick and (self.changes or not self.repeatable):
            raise ValueError(f"tool {self.name!r}: a tool that changes something or must not run twice cannot be quick")

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The tool in the OpenAI shape; built once, because that takes longer than the rest of a request."""
        parameters = self.arguments.model_json_schema()
        parameters.pop("title", None)
        parameters.pop("description", None)
        for property_schema in parameters.get("properties", {}).values():
            property_schema.pop("title", None)
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }

    def only_said(self, scope: Scope) -> bool:
        """Whether a call is not run, because this is a dry run and the tool changes something."""
        return self.changes and scope.dry_run

    def parse(self, arguments: str) -> BaseModel:
        """The arguments that the model wrote, validated.

        Raises:
            ToolError: they are not valid; the text names the defect.
        """
        if defect := defect_of_arguments(arguments):
            raise ToolError(f"{self.name}: {defect}")
        try:
            return self.arguments.model_validate_json(arguments.strip() or "{}")
        except ValidationError as error:
            raise ToolError(f"{self.name}: {describe(error)}") from error


def defect_of_arguments(arguments: str) -> str | None:
    """Why a tool call's argument string is not a JSON object; None if it is one. An empty string counts as `{}`."""
    try:
        decoded = orjson.loads(arguments.strip() or "{}")
    except orjson.JSONDecodeError as error:
        return f"the arguments are not valid JSON: {error}"
    return None if isinstance(decoded, dict) else "the arguments must be a JSON object"


def describe(error: ValidationError) -> str:
    """A validation error in one line."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()[:5])


def tool(
    arguments: type[BaseModel],
    description: str,
    *,
    repeatable: bool | None = None,
    changes: bool = False,
    quick: bool = False,
    needs_approval: bool = False,
) -> Callable[[Callable[[Any, ToolContext], Awaitable[str]]], Tool]:
    """Make a tool from an async function `(arguments, context) -> output`; the tool is named after the function.

    A tool that changes something is not repeatable unless `repeatable` says so. One that `needs_approval` waits for a
    person to allow each call.
    """

    def build(run: Callable[[Any, ToolContext], Awaitable[str]]) -> Tool:
        may_repeat = not changes if repeatable is None else repeatable
        return Tool(run.__name__, description, arguments, run, may_repeat, changes, quick, needs_approval)

    return build


class Registry:
    """The tools of a deployment, by name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def get(self, name: str, scope: Scope) -> Tool:
        """A tool that this scope may use.

        Raises:
            ToolError: no tool has that name, or it is not allowed here; the text lists the allowed ones.
        """
        known = self._tools.get(name)
        if known is None or not allowed(name, scope):
            names = ", ".join(sorted(tool.name for tool in self.allowed(scope)))
            reason = "is not allowed in this session" if known else "does not exist"
            raise ToolError(f"The tool {name!r} {reason}. Available: {names}.")
        return known

    def find(self, name: str) -> Tool | None:
        """The tool of this name, allowed or not; None: there is none."""
        return self._tools.get(name)

    def is_quick(self, name: str) -> bool:
        """Whether this is the name of a tool that is declared as quick."""
        known = self._tools.get(name)
        return known is not None and known.quick

    def allowed(self, scope: Scope) -> list[Tool]:
        return [tool for tool in self._tools.values() if allowed(tool.name, scope)]

    def schemas(self, scope: Scope) -> list[dict[str, Any]]:
        """The allowed tools in the OpenAI shape, always in the same order, so that prompt caches hit."""
        return [tool.schema for tool in self.allowed(scope)]


def allowed(name: str, scope: Scope) -> bool:
    return name not in scope.deny_tools and (scope.allow_tools is None or name in scope.allow_tools)


def load_tools(path: str) -> Registry:
    """The registry behind `module:name`.

    Raises:
        SettingsError: nothing usable is there; the text is one line that says why.
    """
    loaded = named_object("tools", path)
    registry = loaded if isinstance(loaded, Registry) else loaded() if callable(loaded) else None
    if not isinstance(registry, Registry):
        raise not_allowed("tools", path, "it must be a `longhaul.tools.Registry`, or a function that returns one")
    return registry
