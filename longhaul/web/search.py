"""Search engines behind one interface: SearXNG of your own, Brave, Tavily."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import httpx2
import orjson

from longhaul.settings import Settings, not_allowed
from longhaul.web.fetch import WebError

TIMEOUT_S = 20.0
ANSWER_MAX_BYTES = 2_000_000
SNIPPET_MAX_CHARS = 500
ADDRESSES = {"brave": "https://api.search.brave.com", "tavily": "https://api.tavily.com"}


class Source(NamedTuple):
    """A page that a search found."""

    title: str
    url: str
    snippet: str


class SearchEngine(Protocol):
    """Finds pages."""

    async def search(self, query: str, count: int) -> list[Source]:
        """At most `count` pages, best first.

        Raises:
            WebError: the engine gives no answer.
        """
        ...


class SearXNG:
    """https://docs.searxng.org/dev/search_api.html; its settings must allow the format `json`."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def search(self, query: str, count: int) -> list[Source]:
        answer = await _ask("GET", f"{self._address}/search", params={"q": query, "format": "json"})
        return sources(answer.get("results"), "content", count)


class Brave:
    """https://api-dashboard.search.brave.com/app/documentation/web-search"""

    def __init__(self, address: str, key: str) -> None:
        self._address, self._key = address, key

    async def search(self, query: str, count: int) -> list[Source]:
        answer = await _ask(
            "GET",
            f"{self._address}/res/v1/web/search",
            params={"q": query, "count": str(count)},
            headers={"X-Subscription-Token": self._key, "Accept": "application/json"},
        )
        web = answer.get("web")
        return sources(web.get("results") if isinstance(web, dict) else None, "description", count)


class Tavily:
    """https://docs.tavily.com/documentation/api-reference/endpoint/search"""

    def __init__(self, address: str, key: str) -> None:
        self._address, self._key = address, key

    async def search(self, query: str, count: int) -> list[Source]:
        answer = await _ask(
            "POST",
            f"{self._address}/search",
            json={"query": query, "max_results": count},
            headers={"Authorization": f"Bearer {self._key}"},
        )
        return sources(answer.get("results"), "content", count)


def search_engine(settings: Settings) -> SearchEngine | None:
    """The engine that the settings name; None: there is none.

    Raises:
        SettingsError: its address or key is missing.
    """
    engine, key = settings.web_search, settings.web_search_key.get_secret_value()
    address = (settings.web_search_url or ADDRESSES.get(engine, "")).rstrip("/")
    if engine == "off":
        return None
    if not address.startswith(("http://", "https://")):
        raise not_allowed("web_search_url", settings.web_search_url, f"{engine} needs an address, http:// or https://")
    if engine == "searxng":
        return SearXNG(address)
    if not key:
        raise not_allowed("web_search_key", "", f"{engine} needs a key")
    return Brave(address, key) if engine == "brave" else Tavily(address, key)


def sources(results: Any, snippet_field: str, count: int) -> list[Source]:
    """The pages of an answer; entries without an address on the web are left out."""
    pages = [one for one in results if isinstance(one, dict)] if isinstance(results, list) else []
    made = (Source(_plain(one.get("title")), str(one.get("url")), _plain(one.get(snippet_field))) for one in pages)
    return [one for one in made if one.url.startswith(("http://", "https://"))][:count]


def _plain(text: Any) -> str:
    """Text without the tags by which engines mark words."""
    return " ".join(html.unescape(re.sub(r"<[^>]{0,100}>", "", str(text or ""))).split())[:SNIPPET_MAX_CHARS]


async def _ask(
    method: str,
    url: str,
    *,
    params: Mapping[str, str] | None = None,
    json: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    body = bytearray()
    try:
        async with (
            httpx2.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client,
            client.stream(method, url, params=params, json=json, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise WebError(f"The search engine answers {response.status_code}.")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > ANSWER_MAX_BYTES:
                    raise WebError("The search engine's answer is too long.")
        decoded: Any = orjson.loads(body)
    except httpx2.HTTPError as error:
        raise WebError(f"The search engine cannot be reached ({type(error).__name__}).") from error
    except orjson.JSONDecodeError as error:
        raise WebError("The search engine's answer is no JSON.") from error
    if not isinstance(decoded, dict):
        raise WebError("The search engine's answer is no JSON object.")
    return decoded


def as_json(query: str, found: Sequence[Source]) -> str:
    """The sources for the model, and for pages that show them."""
    return orjson.dumps({"query": query, "sources": [one._asdict() for one in found]}).decode()
