"""What a client declares: which tools are taken, and which are refused."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from api.client_tools import DECLARATIONS_MAX, DeclaredTool, checked_tools, declare
from api.problems import ProblemError
from longhaul.tools.client_tools import ClientTool
from longhaul.turns.deliver import IncomingMessage

MESSAGE = IncomingMessage("m", "hi")


def declared(*tools: dict[str, Any]) -> list[DeclaredTool]:
    return [DeclaredTool.model_validate(tool) for tool in tools]


def test_what_is_taken() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = checked_tools(declared({"name": "a"}, {"name": "calculator", "description": "Mine.", "parameters": schema}))
    assert tools == (
        ClientTool("a", "", {"type": "object", "properties": {}}),
        ClientTool("calculator", "Mine.", schema),
    )
    assert checked_tools([]) == ()


@pytest.mark.parametrize(
    ("tools", "where"),
    [
        ([{"name": "wait"}], "body.client_tools.0.name"),
        ([{"name": "a"}, {"name": "share_file"}], "body.client_tools.1.name"),
        ([{"name": "a"}, {"name": "a"}], "body.client_tools.1.name"),
        ([{"name": "a", "parameters": {"type": "string"}}], "body.client_tools.0.parameters"),
        ([{"name": "a", "parameters": {"title": "x" * DECLARATIONS_MAX}}], "body.client_tools"),
    ],
)
def test_what_is_refused(tools: list[dict[str, Any]], where: str) -> None:
    with pytest.raises(ProblemError) as refused:
        checked_tools(declared(*tools))
    assert refused.value.status == 422
    assert refused.value.detail.startswith(f"{where}: ")


@pytest.mark.parametrize("tool", [{}, {"name": "a b"}, {"name": "x" * 65}, {"name": "a", "inputSchema": {}}])
def test_what_is_no_declaration(tool: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DeclaredTool.model_validate(tool)


@pytest.mark.parametrize("scope", [{"dry_run": True}, {"allow_tools": ["calculator"]}, {"deny_tools": ["a"]}])
async def test_the_session_s_limits_hold(scope: dict[str, Any]) -> None:
    session = cast("Any", SimpleNamespace(id="s", scope=scope))
    with pytest.raises(ProblemError) as refused:
        await declare(cast("Any", None), session, MESSAGE, checked_tools(declared({"name": "a"})))
    assert refused.value.status == 422


async def test_a_message_that_says_nothing_of_tools() -> None:
    assert await declare(cast("Any", None), cast("Any", None), MESSAGE, None) is MESSAGE
