"""Fetches one document: a few checked redirects, limits on bytes and time, decompression that cannot explode."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import httpcore2

from longhaul.web.addresses import Network, PublicBackend, RefusedAddressError

REDIRECTS_MAX = 5
REDIRECTS = (301, 302, 303, 307, 308)
URL_MAX_CHARS = 2_000
CONNECT_S, READ_S = 10.0, 20.0
HEADERS: dict[bytes | str, bytes | str] = {
    "User-Agent": "Longhaul web_fetch",
    "Accept": "text/html, application/pdf, text/*;q=0.9, application/json;q=0.9, */*;q=0.1",
    # Of these the decompression is bounded below.
    "Accept-Encoding": "gzip, deflate",
    "Connection": "close",
}


class WebError(Exception):
    """A document cannot be had; the text is for the model, and holds nothing of the answer."""


class Target(NamedTuple):
    """A URL in the parts that a request is made of, so that no second parser can read it differently."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == {"http": 80, "https": 443}[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


class Document(NamedTuple):
    """What was fetched, and from where in the end."""

    url: str
    media_type: str
    charset: str
    body: bytes


def target_of(url: str) -> Target:
    """Take a URL apart.

    Raises:
        WebError: it is not one of a web page.
    """
    try:
        parts = urlsplit(url.strip())
        host = (parts.hostname or "").encode("idna").decode() if ":" not in (parts.hostname or "") else parts.hostname
        port = parts.port or (443 if parts.scheme == "https" else 80)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        path = "".join(one if "!" <= one <= "~" else "".join(f"%{byte:02X}" for byte in one.encode()) for one in path)
    except ValueError as error:  # UnicodeError is one
        raise WebError("That is not a URL.") from error
    if parts.scheme not in ("http", "https") or not host or len(url) > URL_MAX_CHARS:
        raise WebError("Only http:// and https:// URLs of at most 2,000 characters can be fetched.")
    if parts.username is not None or parts.password is not None:
        raise WebError("A URL with a user name or password is not fetched.")
    return Target(parts.scheme, host, port, path)


async def fetch(url: str, max_bytes: int, allowed: Sequence[Network] = ()) -> Document:
    """The document behind a URL.

    Raises:
        WebError: it cannot be had.
    """
    target = target_of(url)
    for _ in range(REDIRECTS_MAX + 1):
        # A pool of its own: no connection is kept from one host's answer to the next.
        async with httpcore2.AsyncConnectionPool(network_backend=PublicBackend(allowed), http2=False) as pool:
            answer = await _get(pool, target, max_bytes)
        if isinstance(answer, Document):
            return answer
        target = target_of(urljoin(target.url, answer))
    raise WebError(f"{url} redirects more than {REDIRECTS_MAX} times.")


async def _get(pool: httpcore2.AsyncConnectionPool, target: Target, max_bytes: int) -> Document | str:
    """The document, or where it redirects to."""
    request = httpcore2.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
    )
    timeouts = {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": CONNECT_S}
    try:
        async with pool.stream("GET", request, headers=HEADERS, extensions={"timeout": timeouts}) as response:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in REDIRECTS and "location" in headers:
                return headers["location"]
            if response.status >= 300:
                raise WebError(f"{target.url} answers {response.status}.")
            body = await _body(response, headers.get("content-encoding", ""), max_bytes)
    except RefusedAddressError as error:
        raise WebError(str(error)) from error
    except httpcore2.TimeoutException as error:
        raise WebError(f"{target.host} does not answer in time.") from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, OSError) as error:
        raise WebError(f"{target.host} cannot be reached ({type(error).__name__}).") from error
    kind, *parameters = headers.get("content-type", "").split(";")
    charsets = [one.partition("=")[2].strip("\"' ") for one in parameters if one.strip().lower().startswith("charset=")]
    return Document(target.url, kind.strip().lower(), charsets[0] if charsets else "", body)


async def _body(response: httpcore2.Response, encoding: str, max_bytes: int) -> bytes:
    """The decoded body. Neither what is sent nor what it unfolds to may exceed the limit."""
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise WebError(f"It is encoded as {encoding[:20]!r}, which was not asked for.")
    unfold = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding not in ("", "identity") else None
    received, body = 0, bytearray()
    async for chunk in response.aiter_stream():
        received += len(chunk)
        try:
            body += chunk if unfold is None else unfold.decompress(chunk, max_bytes + 1 - len(body))
        except zlib.error as error:
            raise WebError("Its compression is broken.") from error
        if received > max_bytes or len(body) > max_bytes:
            raise WebError(f"It has more than {max_bytes} bytes.")
    return bytes(body)
