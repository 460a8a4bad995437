"""Tools that clients declare with a message and run themselves: their JSON, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import Dependencies
from api.problems import ProblemError, invalid
from longhaul.contracts import Scope
from longhaul.db import client_tools
from longhaul.db.sessions import Session
from longhaul.tools.client_tools import RESERVED_NAMES, ClientTool
from longhaul.tools.registry import NAME, allowed
from longhaul.turns.deliver import IncomingMessage

TOOLS_MAX, DESCRIPTION_MAX = 128, 8_000
#: Characters of all declarations of a message, as JSON. The model is given them with each of its calls.
DECLARATIONS_MAX = 128_000
#: Characters of a result, as text or JSON.
RESULT_MAX = 256_000


class DeclaredTool(BaseModel):
    """A tool of the client. The model calls it, the client runs it and sends the result."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "open_page", "description": "Shows a page of the shop to the person."}]
        },
    )

    name: str = Field(pattern=f"^{NAME.pattern}$", description="Not that of a tool which workflows perform.")
    description: str = Field("", max_length=DESCRIPTION_MAX)
    parameters: dict[str, Any] = Field(
        {"type": "object", "properties": {}}, description="The JSON Schema of its arguments, an object."
    )

    @property
    def tool(self) -> ClientTool:
        return ClientTool(self.name, self.description, self.parameters)


DeclaredTools = Annotated[
    list[DeclaredTool],
    Field(
        max_length=TOOLS_MAX,
        fail_fast=True,
        description="Tools that the sender runs itself. They are offered in the turn that the message begins, or, in a "
        "turn that it joins, from then on.",
    ),
]


def checked_tools(declared: Sequence[DeclaredTool], field: str = "client_tools") -> tuple[ClientTool, ...]:
    """The tools that a body declares in this field.

    Raises:
        ProblemError: 422, with where and why.
    """
    names = [one.name for one in declared]
    for at, one in enumerate(declared):
        if one.name in RESERVED_NAMES:
            raise _refused([field, at, "name"], f"the tool {one.name} is Longhaul's own; give yours another name")
        if one.name in names[:at]:
            raise _refused([field, at, "name"], f"another tool is called {one.name}")
        if one.parameters.get("type", "object") != "object":
            raise _refused([field, at, "parameters"], "the schema should be that of an object")
    if (size := len(orjson.dumps([one.model_dump() for one in declared]))) > DECLARATIONS_MAX:
        raise _refused([field], f"the declarations have {size} bytes; {DECLARATIONS_MAX} are taken")
    return tuple(one.tool for one in declared)


async def declare(
    deps: Dependencies, session: Session, message: IncomingMessage, tools: Sequence[ClientTool] | None
) -> IncomingMessage:
    """The message with the tools that its sender declares; None: it says nothing of tools.

    Raises:
        ProblemError: 422, the session may not have one of them.
    """
    if tools is None:
        return message
    scope = Scope.model_validate(session.scope or {})
    if tools and scope.dry_run:
        raise _refused(["client_tools"], "this session is a dry run, and what a client's tool changes is not known")
    if refused := next((tool.name for tool in tools if not allowed(tool.name, scope)), None):
        raise _refused(["client_tools"], f"the tool {refused} is not allowed in this session")
    async with deps.database.write() as connection:
        return replace(message, client_tools=await client_tools.keep(connection, session.id, tools))


def result_text(output: object) -> str:
    """A client's result as the model reads it: a text as it is, else JSON.

    Raises:
        ProblemError: 413, it is too large.
    """
    text = output if isinstance(output, str) else orjson.dumps(output).decode()
    if len(text) > RESULT_MAX:
        why = f"A result may have up to {RESULT_MAX} characters. Send the part that matters, or a file's id."
        raise ProblemError(413, "too-large", why)
    return text


def _refused(loc: list[str | int], why: str) -> ProblemError:
    return invalid([{"loc": ["body", *loc], "msg": why, "type": "not_taken"}])
