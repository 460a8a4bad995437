"""A tool's arguments from the signature and the docstring of its function."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from longhaul.tools.context import ToolContext

NO_OUTPUT = "Done."


class Declared(NamedTuple):
    """What a function declares: what it does, its arguments as a model, and itself as `(arguments, context)`."""

    description: str
    arguments: type[BaseModel]
    run: Callable[[Any, ToolContext], Awaitable[str]]


def declared(function: Callable[..., Awaitable[Any]], name: str) -> Declared:
    """Read a function's signature and docstring. A parameter of type `ToolContext` is not shown to the model.

    Raises:
        ValueError: it cannot be a tool; the text says why, and what to change.
    """
    if not inspect.iscoroutinefunction(function):
        raise ValueError(f"tool {name!r} must be an `async def`; run blocking work in it by `asyncio.to_thread`")
    documented = docstring_parser.parse(inspect.getdoc(function) or "")
    description = "\n".join(filter(None, (documented.short_description, documented.long_description)))
    if not description:
        raise ValueError(f"tool {name!r} has no docstring; the model reads there what the tool does")
    described = {param.arg_name: param.description or "" for param in documented.params}
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ValueError(f"tool {name!r}: a type of its signature is unknown: {error}") from error
    fields: dict[str, Any] = {}
    context_names = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"tool {name!r}: {parameter} cannot be filled by a model; give each argument a name")
        if parameter.name.startswith("_"):
            raise ValueError(f"tool {name!r}: the name of argument {parameter.name!r} cannot begin with _")
        if parameter.name not in hints:
            raise ValueError(f"tool {name!r}: argument {parameter.name!r} has no type")
        if hints[parameter.name] is ToolContext:
            context_names.append(parameter.name)
            continue
        hint = _described(hints[parameter.name], parameter.default, described.get(parameter.name, ""))
        fields[parameter.name] = (hint, ... if parameter.default is parameter.empty else parameter.default)
    try:
        arguments = create_model(name, __config__=ConfigDict(protected_namespaces=()), **fields)
        arguments.model_json_schema()
    except (PydanticUserError, NameError, TypeError) as error:
        raise ValueError(f"tool {name!r}: its arguments have no JSON Schema: {error}") from error

    async def run(given: BaseModel, context: ToolContext) -> str:
        values = {argument: getattr(given, argument) for argument in fields}
        return as_text(await function(**values, **dict.fromkeys(context_names, context)))

    return Declared(description, arguments, run)


def _described(hint: Any, default: Any, description: str) -> Any:
    """The type with its description from the docstring, unless it has one of its own."""
    own = [*(get_args(hint)[1:] if get_origin(hint) is Annotated else ()), default]
    if not description or any(isinstance(part, FieldInfo) and part.description for part in own):
        return hint
    return Annotated[hint, Field(description=" ".join(description.split()))]


def as_text(output: Any) -> str:
    """A tool's output for the model: text as it is, everything else as JSON."""
    if isinstance(output, str):
        return output
    return NO_OUTPUT if output is None else to_json(output).decode()
