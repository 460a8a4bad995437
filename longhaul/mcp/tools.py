"""A server's tools as ours: their names, what is shown of them to the model, and what a call may do."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson
from jsonschema import Draft202012Validator, SchemaError
from mcp_types import Tool as Listed
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field, RootModel

from longhaul.mcp.connection import Connection
from longhaul.mcp.results import text_of_resource, text_of_result
from longhaul.tools.context import ToolContext, ToolError
from longhaul.tools.registry import SCHEMAS_MAX_CHARS, Tool

SEPARATOR = "__"
NAME_MAX_CHARS = 64
DESCRIPTION_MAX_CHARS = 4_000
#: Levels of a schema. Endpoints take fewer, and deep ones end our own recursion.
DEPTH_MAX = 20
READ_RESOURCE = "read_resource"
NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_-]")


class Arguments(RootModel[dict[str, Any]]):
    """Any JSON object. The server checks it: its schema is shown to the model, and not run in our process."""


class Resource(BaseModel):
    uri: str = Field(max_length=2_000, description="As a result of this server names it")


class ServerTools(NamedTuple):
    """What a server offers, and what of it is left out and why."""

    tools: list[Tool]
    defects: list[str]


def tools_of(connection: Connection) -> ServerTools:
    """The tools of a server that can be offered, in the order of their names."""
    config = connection.config
    tools: dict[str, Tool] = {}
    defects: list[str] = []
    for listed in sorted(connection.listed, key=lambda one: one.name):
        if not config.offers(listed.name):
            continue
        name = name_of(connection.name, listed.name)
        if defect := "another one has the same name" if name in tools else _defect(listed.input_schema):
            defects.append(f"tool {listed.name[:100]!r} is left out: {defect}")
        else:
            tools[name] = _tool(connection, name, listed)
    reading = name_of(connection.name, READ_RESOURCE)
    if connection.has_resources and config.offers(READ_RESOURCE) and reading not in tools:
        tools[reading] = _reading(connection, reading)
    return ServerTools(list(tools.values()), defects)


def name_of(server: str, tool_name: str) -> str:
    """The name that the model calls. One that endpoints do not take is changed, and stays unique by its hash."""
    name = f"{server}{SEPARATOR}{NOT_ALLOWED.sub('_', tool_name)}"
    if len(name) <= NAME_MAX_CHARS:
        return name
    digest = hashlib.sha256(tool_name.encode()).hexdigest()[:8]
    return f"{name[: NAME_MAX_CHARS - 9]}_{digest}"


def chars_of(tools: Sequence[Tool]) -> int:
    """What the schemas of tools take of a request."""
    return sum(len(orjson.dumps(tool.schema)) for tool in tools)


def _tool(connection: Connection, name: str, listed: Listed) -> Tool:
    config = connection.config
    said = (listed.annotations if config.trust_annotations else None) or ToolAnnotations()
    reads = said.read_only_hint is True
    repeatable = reads or said.idempotent_hint is True

    async def run(arguments: Arguments, context: ToolContext) -> str:
        result = await connection.call(listed.name, arguments.root, context, again=repeatable)
        text = await text_of_result(connection.name, result, context)
        if result.is_error:
            raise ToolError(text)
        return text

    shown = {key: value for key, value in listed.input_schema.items() if key not in ("$schema", "title")}
    description = listed.description or listed.title or listed.name
    return Tool(
        name,
        description[:DESCRIPTION_MAX_CHARS],
        Arguments,
        run,
        repeatable=repeatable,
        changes=not reads,
        needs_approval=config.needs_approval,
        timeout=config.timeout,
        parameters={"properties": {}, **shown},
        definition=_definition(listed),
    )


def _reading(connection: Connection, name: str) -> Tool:
    async def run(arguments: Resource, context: ToolContext) -> str:
        return await text_of_resource(connection.name, await connection.read(arguments.uri), context)

    return Tool(
        name,
        f"Read a resource that {connection.name} names in a result.",
        Resource,
        run,
        needs_approval=connection.config.needs_approval,
        timeout=connection.config.timeout,
    )


def _definition(listed: Listed) -> str:
    """A hash of everything that a server says of a tool: who allows a call has allowed this tool and no other."""
    said = listed.model_dump(mode="json", by_alias=True, exclude={"icons", "output_schema"}, exclude_none=True)
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def _defect(schema: dict[str, Any]) -> str | None:
    """Why a tool's schema cannot be shown to a model: an endpoint that takes no part of it refuses every request."""
    if schema.get("type") != "object":
        return "its schema is not that of an object"
    if any(depth > DEPTH_MAX for depth in _depths(schema)):
        return f"its schema has more than {DEPTH_MAX} levels"
    if (chars := len(orjson.dumps(schema))) > SCHEMAS_MAX_CHARS:
        return f"its schema takes {chars} characters, more than the {SCHEMAS_MAX_CHARS} of all tools together"
    if outside := next((ref for ref in _references(schema) if not _leads_somewhere(schema, ref)), None):
        return f"its schema refers to {outside[:100]!r}, which is not in it"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"its schema is no JSON Schema: {error.message[:200]}"
    return None


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        value = list(value.values())
    for member in value if isinstance(value, list) else ():
        yield from _references(member)


def _leads_somewhere(schema: Any, reference: str) -> bool:
    """Whether a reference is one to a place within the schema."""
    if not reference.startswith("#"):
        return False
    for name in reference.removeprefix("#").split("/")[1:]:
        schema = schema.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(schema, dict) else None
    return isinstance(schema, dict | bool)


def _depths(schema: Any) -> Iterator[int]:
    """How deep each value lies; stops below the limit, so that no schema is too deep to look at."""
    waiting = [(schema, 0)]
    while waiting:
        value, depth = waiting.pop()
        yield depth
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if depth <= DEPTH_MAX:
            waiting += [(member, depth + 1) for member in members]
