"""A server's tools as ours: names, what a call may do, and the schemas of a server that lies about them."""

from collections.abc import Sequence
from typing import Any

import pytest
from mcp_types import Tool as Listed
from mcp_types import ToolAnnotations

from longhaul.contracts import Scope
from longhaul.mcp.config import ServerConfig
from longhaul.mcp.connection import Connection
from longhaul.mcp.servers import McpServers
from longhaul.mcp.tools import tools_of
from longhaul.settings import load_settings
from longhaul.tools import Registry, ToolError, default_tools
from longhaul.tools.approval import ApprovalRules
from longhaul.tools.registry import SCHEMAS_MAX_CHARS

OBJECT: dict[str, Any] = {"type": "object"}
CONFIG = ServerConfig(url="http://x")


def listed(name: str, schema: dict[str, Any] | None = None, description: str = "", **said: bool) -> Listed:
    annotations = ToolAnnotations(**said) if said else None
    return Listed(name=name, description=description, input_schema=schema or OBJECT, annotations=annotations)


def server(*tools: Listed, name: str = "shop", config: ServerConfig = CONFIG) -> Connection:
    connection = Connection(name, config, 1_000, lambda: None)
    connection.listed = tools
    return connection


def servers(settings: dict[str, Any], **lists: Sequence[Listed]) -> McpServers:
    found = McpServers(dict.fromkeys(lists, CONFIG), default_tools(), load_settings(**settings))
    for connection in found._connections:
        connection.listed = lists[connection.name]
    found._take()
    return found


def test_names() -> None:
    tools, _ = tools_of(server(listed("buy"), listed("files/read.all"), listed("x" * 100), listed("x" * 99 + "y")))
    names = [tool.name for tool in tools]
    assert names[:2] == ["shop__buy", "shop__files_read_all"]
    assert len(set(names)) == 4
    assert all(len(name) <= 64 for name in names)


def test_two_tools_of_one_name() -> None:
    tools, defects = tools_of(server(listed("a.b"), listed("a/b")))
    assert [tool.name for tool in tools] == ["shop__a_b"]
    assert "has the same name" in defects[0]


@pytest.mark.parametrize(
    ("said", "trusted", "repeatable", "changes"),
    [
        ({}, True, False, True),
        ({"read_only_hint": True}, True, True, False),
        ({"idempotent_hint": True}, True, True, True),
        ({"read_only_hint": False, "destructive_hint": False}, True, False, True),
        ({"read_only_hint": True, "idempotent_hint": True}, False, False, True),
    ],
)
def test_what_a_call_may_do(said: dict[str, Any], trusted: bool, repeatable: bool, changes: bool) -> None:
    config = CONFIG.model_copy(update={"trust_annotations": trusted})
    [tool] = tools_of(server(listed("buy", **said), config=config)).tools
    assert (tool.repeatable, tool.changes) == (repeatable, changes)
    assert tool.only_said(Scope(dry_run=True)) is changes


def test_allow_lists_and_approvals() -> None:
    config = CONFIG.model_copy(update={"tools": ("buy*",), "needs_approval": True})
    tools, _ = tools_of(server(listed("buy"), listed("buy_two"), listed("sell"), config=config))
    assert [tool.name for tool in tools] == ["shop__buy", "shop__buy_two"]
    assert all(tool.needs_approval for tool in tools)
    found = servers({"disabled_tools": "shop__sell", "mcp_config": "x"}, shop=[listed("buy"), listed("sell")])
    registry = default_tools().with_source(found)
    assert list(found.tools) == ["shop__buy"]
    with pytest.raises(ToolError, match="not allowed"):
        registry.get("shop__buy", Scope(deny_tools=("shop__buy",)))
    assert [tool.name for tool in registry.allowed(Scope(allow_tools=("shop__buy",)))] == ["shop__buy"]
    rules = ApprovalRules(["shop__*(amount=1*)"])
    assert rules.need(found.tools["shop__buy"], '{"amount": 10}', "u")
    assert not rules.need(found.tools["shop__buy"], '{"amount": 20}', "u")


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"not": schema}
    return {"type": "object", "properties": {"a": schema}}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array"}, "not that of an object"),
        ({"properties": {}}, "not that of an object"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, "no JSON Schema"),
        ({"type": "object", "properties": 5}, "no JSON Schema"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "no JSON Schema"),
        ({"type": "object", "properties": {"a": {"$ref": "http://169.254.169.254/"}}}, "not in it"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}, "not in it"),
        (deep(50), "more than 20 levels"),
        (deep(50_000), "more than 20 levels"),
        ({"type": "object", "description": "x" * 40_000}, "characters"),
    ],
)
def test_a_schema_that_endpoints_would_refuse_costs_its_tool_only(schema: dict[str, Any], words: str) -> None:
    tools, defects = tools_of(server(listed("bad", schema), listed("good")))
    assert [tool.name for tool in tools] == ["shop__good"]
    assert len(defects) == 1
    assert words in defects[0]


def test_schemas_are_shown_as_they_are() -> None:
    schema = {"$schema": "x", "title": "T", "type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}
    schema["$defs"] = {"A": {"type": "integer"}}
    [tool] = tools_of(server(listed("buy", schema, "Buys."))).tools
    shown = {"type": "object", "properties": schema["properties"], "$defs": schema["$defs"]}
    assert tool.schema["function"] == {"name": "shop__buy", "description": "Buys.", "parameters": shown}
    assert tool.is_valid('{"a": "any"}'), "the server checks arguments"
    assert not tool.is_valid("[]")


def test_a_server_that_is_too_large_is_named_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    many = [listed(f"tool_{number}", description="x" * 1_000) for number in range(40)]
    found = servers({}, small=[listed("a")], large=many, after=[listed("b")])
    assert list(found.tools) == ["small__a", "after__b"]
    [trouble] = [words for words in found.troubles if "too large" in words]
    assert "MCP server large is too large" in trouble
    assert f"of {SCHEMAS_MAX_CHARS} are left" in trouble
    assert trouble in caplog.text
    everything = default_tools().with_source(found).schemas(Scope())
    assert len(str(everything)) < SCHEMAS_MAX_CHARS * 1.1


def test_a_server_cannot_take_the_name_of_our_tool() -> None:
    [own] = tools_of(server(listed("buy"))).tools
    found = McpServers({"shop": CONFIG}, Registry([own]), load_settings())
    found._connections[0].listed = [listed("buy", description="Another one.")]
    found._take()
    assert not found.tools
    assert any("'shop__buy'" in words for words in found.troubles)


def test_a_definition_names_everything_that_a_server_says() -> None:
    base = listed("buy", description="Buys.")
    others = [
        listed("buy", description="Sells."),
        listed("buy", {"type": "object", "properties": {"a": {}}}, "Buys."),
        listed("buy", description="Buys.", read_only_hint=True),
    ]
    [definition] = {tools_of(server(one)).tools[0].definition for one in (base, base.model_copy())}
    assert definition not in {tools_of(server(one)).tools[0].definition for one in others}


def test_a_server_that_is_away_is_named() -> None:
    registry = default_tools().with_source(McpServers({"shop": CONFIG}, default_tools(), load_settings()))
    with pytest.raises(ToolError, match="'shop__buy' is not there now: the MCP server shop does not answer"):
        registry.get("shop__buy", Scope())
    with pytest.raises(ToolError, match="does not exist"):
        registry.get("other__buy", Scope())
