"""Search engines, each in its own protocol, on a real server; the tool gives sources."""

import json
from typing import Any

import pytest

from longhaul.settings import SettingsError, load_settings
from longhaul.tools import ToolContext, ToolError
from longhaul.tools.load import load_tools
from longhaul.tools.web import web_search
from longhaul.web.search import search_engine
from tests.longhaul.web.test_fetch import Server, serving

KEY = "key-that-nobody-sees"
FOUND = [
    {"title": "On <strong>tides</strong>", "url": "https://a.example/", "TEXT": "Noon &amp; midnight"},
    {"title": "No page", "url": "javascript:alert(1)", "TEXT": "x"},
    {"title": "Second", "url": "https://b.example/", "TEXT": None},
    {"title": "Third", "url": "https://c.example/", "TEXT": "x" * 9_000},
    "no entry",
]
SOURCES = [
    {"title": "On tides", "url": "https://a.example/", "snippet": "Noon & midnight"},
    {"title": "Second", "url": "https://b.example/", "snippet": ""},
]


def answer(field: str) -> list[Any]:
    return [
        {field if name == "TEXT" else name: value for name, value in one.items()} if isinstance(one, dict) else one
        for one in FOUND
    ]


async def search(server: Server, engine: str, context: ToolContext, count: int = 2) -> dict[str, Any]:
    address = f"http://127.0.0.1:{server.port}"
    settings = load_settings(web_search=engine, web_search_url=address, web_search_key=KEY)
    tool = load_tools(settings).find("web_search")
    assert tool is not None
    assert tool.run is not None
    found: dict[str, Any] = json.loads(
        await tool.run(tool.parse(json.dumps({"query": "tides?", "count": count})), context)
    )
    return found


@pytest.mark.parametrize(
    ("engine", "path", "body", "asked"),
    [
        ("searxng", "/search?q=tides%3F&format=json", {"results": answer("content")}, ""),
        (
            "brave",
            "/res/v1/web/search?q=tides%3F&count=2",
            {"web": {"results": answer("description")}},
            f"x-subscription-token: {KEY}",
        ),
        ("tavily", "/search", {"results": answer("content")}, f"authorization: bearer {KEY}"),
    ],
)
async def test_an_engine_gives_sources(
    context: ToolContext, engine: str, path: str, body: dict[str, Any], asked: str
) -> None:
    async with serving() as server:
        server.say(path, json.dumps(body).encode(), Content_Type="application/json")
        assert await search(server, engine, context) == {"query": "tides?", "sources": SOURCES}
        [request] = server.asked
        assert asked.lower() in request.decode().lower()
        assert (KEY in request.decode()) is bool(asked), "SearXNG has no key to be told"
        server.say(path, b"{}")
        assert (await search(server, engine, context))["sources"] == []


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        ("401 No", b"your key key-that-nobody-sees is wrong", "The search engine answers 401."),
        ("302 Found", b"", "The search engine answers 302."),
        ("200 OK", b"<html>", "The search engine's answer is no JSON."),
        ("200 OK", b"[]", "The search engine's answer is no JSON object."),
        ("200 OK", b"x" * 3_000_000, "The search engine's answer is too long."),
    ],
)
async def test_a_failure_shows_neither_key_nor_answer(
    context: ToolContext, status: str, body: bytes, reason: str
) -> None:
    async with serving() as server:
        server.say("/search", body, status, Location="http://127.0.0.1:1/")
        with pytest.raises(ToolError) as raised:
            await search(server, "tavily", context)
        assert str(raised.value) == reason


async def test_an_engine_that_is_away_is_said(context: ToolContext) -> None:
    engine = search_engine(load_settings(web_search="searxng", web_search_url="http://127.0.0.1:1"))
    assert engine is not None
    tool = web_search(engine)
    assert tool.run is not None
    with pytest.raises(ToolError, match="cannot be reached"):
        await tool.run(tool.parse('{"query": "x"}'), context)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"web_search": "searxng"}, "LONGHAUL_WEB_SEARCH_URL='' is not allowed: searxng needs an address"),
        ({"web_search": "brave"}, "LONGHAUL_WEB_SEARCH_KEY='' is not allowed: brave needs a key"),
        ({"web_search": "tavily", "web_search_key": KEY, "web_search_url": "x"}, "tavily needs an address"),
    ],
)
def test_what_an_engine_needs_is_said_at_the_start(given: dict[str, str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as raised:
        load_tools(load_settings(**given))
    assert KEY not in str(raised.value)


def test_it_is_off_unless_a_setting_turns_it_on() -> None:
    assert search_engine(load_settings()) is None
    assert load_tools(load_settings()).find("web_search") is None
