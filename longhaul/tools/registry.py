"""Tools: a name, typed arguments, a JSON Schema for the model, and what a call may do and cost."""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any, Protocol, TypedDict, Unpack, overload

import orjson
from pydantic import BaseModel, ValidationError

from longhaul.contracts import Scope
from longhaul.tools.context import ToolContext, ToolError
from longhaul.tools.signature import declared

SCHEMAS_MAX_CHARS = 32_000
#: What endpoints take as a tool's name.
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
QUEUE_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
WOULD_MAX_CHARS = 1_000

Run = Callable[[Any, ToolContext], Awaitable[str]]


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        run: the function; None for tools that the workflow performs itself (timers, sub-sessions).
        repeatable: whether a call may run again after its worker died. If not, such a call ends as `lost`.
            Unless given: only if the tool changes nothing.
        changes: whether it has side effects; a dry run does not run it.
        quick: whether it only computes, for some milliseconds. It then runs within the workflow task that asks for
            it, at a fraction of an activity's cost, and runs again whenever that task is repeated.
        needs_approval: whether a person has to allow each call.
        timeout: seconds that one start may take; None: as `LONGHAUL_TOOL_TIMEOUT` says.
        retries: how often a call that ends by an exception is started again, with growing waits. A `ToolError` is an
            answer to the model, and is not retried.
        requires: tools that must have succeeded in this session before.
        price_microdollars: what a call costs that succeeds. It is booked, and a session's budget must have room for it.
        task_queue: the queue of the tool workers that run it; empty: the deployment's own workers do.
        would: what a call would do, for dry runs, with the names of arguments: "send {subject} to {to}".
        parameters: the JSON Schema that the model is shown, where it is not that of `arguments`.
        definition: what names exactly this tool where somebody else may put another one in its place: consent to one
            is none to the other.
    """

    name: str
    description: str
    arguments: type[BaseModel]
    run: Run | None
    repeatable: bool | None = None
    changes: bool = False
    quick: bool = False
    needs_approval: bool = False
    timeout: float | None = None
    retries: int = 0
    requires: tuple[str, ...] = ()
    would: str = ""
    price_microdollars: int = 0
    parameters: Mapping[str, Any] | None = None
    definition: str = ""
    task_queue: str = ""

    def __post_init__(self) -> None:
        if self.repeatable is None:
            object.__setattr__(self, "repeatable", not self.changes)
        if defect := self._defect():
            raise ValueError(f"tool {self.name!r}: {defect}")

    def _defect(self) -> str | None:
        """Why there cannot be such a tool; None if there can."""
        if not NAME.fullmatch(self.name):
            return "a name has 1 to 64 letters, digits, _ and -"
        if self.quick and (self.changes or not self.repeatable):
            return "a tool that changes something or must not run twice cannot be quick"
        if self.quick and (self.retries or self.timeout):
            return "a quick tool only computes; it cannot have retries or a timeout"
        if self.retries and not self.repeatable:
            return "retries run a call again; say repeatable=True if that does no harm"
        if self.price_microdollars < 0 or (self.price_microdollars and self.run is None):
            return "a price is not negative, and only a tool with a function has one"
        if self.retries < 0 or (self.timeout is not None and self.timeout <= 0):
            return "retries cannot be negative, and a timeout is more than 0 seconds"
        if self.task_queue and not QUEUE_NAME.fullmatch(self.task_queue):
            return "a task queue has 1 to 64 letters, digits, _, - and ."
        if self.task_queue and (self.quick or self.run is None):
            return "only an ordinary tool with a function has a task queue: quick ones run within the workflow task"
        unknown = {name for _, name, _, _ in Formatter().parse(self.would) if name is not None}
        if unknown := unknown - set(self.arguments.model_fields):
            return f"`would` names {', '.join(sorted(map(repr, unknown)))}, which is no argument"
        return None

    def told(self, arguments: BaseModel) -> str:
        """What a call would do, in place of doing it."""
        if not self.would:
            return f"Dry run: {self.name} was not run."
        values = {name: getattr(arguments, name) for name in type(arguments).model_fields}
        return f"Dry run: {self.name} was not run. It would {self.would.format_map(values)[:WOULD_MAX_CHARS]}."

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The tool in the OpenAI shape; built once, because that takes longer than the rest of a request."""
        if self.parameters is not None:
            return self._shown(dict(self.parameters))
        parameters = self.arguments.model_json_schema()
        parameters.pop("title", None)
        parameters.pop("description", None)
        for property_schema in parameters.get("properties", {}).values():
            property_schema.pop("title", None)
        return self._shown(parameters)

    def _shown(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }

    def is_valid(self, arguments: str) -> bool:
        """Whether the arguments that the model wrote can be used."""
        try:
            self.parse(arguments)
        except ToolError:
            return False
        return True

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


class ToolOptions(TypedDict, total=False):
    """What `@tool` takes beside the function; see `Tool`."""

    name: str
    repeatable: bool | None
    changes: bool
    quick: bool
    timeout: float | None
    retries: int
    requires: tuple[str, ...]
    would: str
    needs_approval: bool
    price_microdollars: int
    task_queue: str


@overload
def tool(function: Callable[..., Awaitable[Any]], /) -> Tool: ...
@overload
def tool(**options: Unpack[ToolOptions]) -> Callable[[Callable[..., Awaitable[Any]]], Tool]: ...
@overload
def tool(arguments: type[BaseModel], description: str, /, **options: Unpack[ToolOptions]) -> Callable[[Run], Tool]: ...
def tool(
    subject: Callable[..., Awaitable[Any]] | type[BaseModel] | None = None,
    description: str = "",
    /,
    **options: Unpack[ToolOptions],
) -> Tool | Callable[[Any], Tool]:
    """Make a tool from an async function; the tool is named after it unless `name` says otherwise.

    `@tool`, also with options, reads the arguments from the function's signature and what they mean from its docstring.
    `@tool(Model, "what it does")` is for a function `(arguments: Model, context) -> str`. A tool that changes something
    is not repeatable unless `repeatable` says so.

    Raises:
        ValueError: the function cannot be a tool, or the options contradict each other.
    """
    if isinstance(subject, type):
        model = subject
        return lambda run: _made(_name(run, options), description, model, run, options)

    def build(function: Callable[..., Awaitable[Any]]) -> Tool:
        name = _name(function, options)
        return _made(name, *declared(function, name), options)

    return build(subject) if subject is not None else build


def _name(function: Callable[..., Any], options: ToolOptions) -> str:
    name = str(options.get("name") or getattr(function, "__name__", ""))
    if not NAME.fullmatch(name):
        raise ValueError(f"tool {name!r}: a name has 1 to 64 letters, digits, _ and -")
    return name


def _made(name: str, description: str, arguments: type[BaseModel], run: Run, options: ToolOptions) -> Tool:
    others: Any = {option: value for option, value in options.items() if option != "name"}
    return Tool(name, description, arguments, run, **others)


class ToolSource(Protocol):
    """Tools that come and go while a process runs."""

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Those that are there now, by name."""

    def why_missing(self, tool_name: str) -> str | None:
        """Why a tool that may come back is not there; None if the name is unknown."""


class Registry:
    """The tools of a deployment, by name: its own, and behind them those of a source."""

    def __init__(self, tools: Iterable[Tool], source: ToolSource | None = None) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._source = source

    def __iter__(self) -> Iterator[Tool]:
        yield from self._tools.values()
        if self._source is not None:
            yield from self._source.tools.values()

    def with_source(self, source: ToolSource) -> "Registry":
        """The same tools, and those of a source."""
        return Registry(self._tools.values(), source)

    def get(self, name: str, scope: Scope) -> Tool:
        """A tool that this scope may use.

        Raises:
            ToolError: no tool has that name, or it is not allowed here; the text lists the allowed ones.
        """
        known = self.find(name)
        if (
            known is None
            and allowed(name, scope)
            and self._source is not None
            and (why := self._source.why_missing(name))
        ):
            raise ToolError(f"The tool {name!r} is not there now: {why}.")
        if known is None or not allowed(name, scope):
            names = ", ".join(sorted(tool.name for tool in self.allowed(scope)))
            reason = "is not allowed in this session" if known else "does not exist"
            raise ToolError(f"The tool {name!r} {reason}. Available: {names}.")
        return known

    def find(self, name: str) -> Tool | None:
        """The tool of this name, whoever may use it; None if there is none."""
        known = self._tools.get(name)
        return known if known is not None or self._source is None else self._source.tools.get(name)

    def allowed(self, scope: Scope) -> list[Tool]:
        return [tool for tool in self if allowed(tool.name, scope)]

    def schemas(self, scope: Scope) -> list[dict[str, Any]]:
        """The allowed tools in the OpenAI shape, always in the same order, so that prompt caches hit."""
        return [tool.schema for tool in self.allowed(scope)]


def allowed(name: str, scope: Scope) -> bool:
    return name not in scope.deny_tools and (scope.allow_tools is None or name in scope.allow_tools)
