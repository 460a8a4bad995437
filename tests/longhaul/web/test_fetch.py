"""Fetching from addresses that an attacker chose, on a real server of this machine."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import httpcore2
import pytest

from longhaul.web import addresses
from longhaul.web import fetch as module
from longhaul.web.addresses import Network, may_reach
from longhaul.web.fetch import WebError, fetch, target_of

THIS: list[Network] = [ip_network("127.0.0.1/32")]
MEGABYTE = 1_000_000


class Server:
    """Answers every request with the bytes under its path, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.asked: list[bytes] = []
        self.port = 0

    def say(self, path: str, body: bytes = b"", status: str = "200 OK", **headers: str) -> str:
        """The URL of an answer with these headers."""
        lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
        self.answers[path] = "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
        return f"http://127.0.0.1:{self.port}{path}"

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(request)
        writer.write(self.answers[request.split(b" ")[1].decode()])
        try:
            await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    answers = Server()
    server = await asyncio.start_server(answers, "0.0.0.0", 0)  # noqa: S104  # the tests reach 127.0.0.2 too
    answers.port = server.sockets[0].getsockname()[1]
    yield answers
    server.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as found:
        yield found


async def refused(url: str, allowed: Sequence[Network] = THIS) -> str:
    with pytest.raises(WebError) as raised:
        await fetch(url, MEGABYTE, allowed)
    return str(raised.value)


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("fec0::1", False),
        ("5f00::1", False),
        ("192.88.99.1", False),
        ("168.63.129.16", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::a00:1", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
    ],
)
def test_which_addresses_are_public(address: str, reached: bool) -> None:
    assert may_reach(address) is reached


def test_an_operator_may_allow_a_network() -> None:
    allowed = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]
    reached = ("10.1.2.3", "::ffff:10.1.2.3", "fd00:ec2::254")
    assert all(may_reach(address, allowed) for address in reached)
    assert not any(may_reach(address, allowed) for address in ("10.2.0.1", "127.0.0.1", "::1"))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "[::ffff:127.0.0.1]", "[::1]"],
)
async def test_this_machine_is_not_reached_however_it_is_written(server: Server, host: str) -> None:
    server.say("/", b"secret")
    text = await refused(f"http://{host}:{server.port}/", allowed=())
    assert "not a public address" in text or "cannot be reached" in text, "some ways to write it resolve nowhere"
    assert server.asked == []


async def test_a_name_that_resolves_differently_the_next_time_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the address that was checked is the one that is connected to."""
    answers = [["93.184.216.34"], ["127.0.0.1"], ["93.184.216.34", "127.0.0.1"]]
    connected: list[str] = []

    async def resolved(host: str, port: int) -> list[str]:
        return answers.pop(0)

    async def connect_tcp(self: Any, host: str, *_: Any) -> None:
        connected.append(host)
        raise httpcore2.ConnectError

    monkeypatch.setattr(addresses, "resolved", resolved)
    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect_tcp)
    assert "cannot be reached" in await refused("http://rebound.example/", allowed=())
    assert "not a public address" in await refused("http://rebound.example/", allowed=())
    assert "not a public address" in await refused("http://rebound.example/", allowed=()), "one of two is not enough"
    assert connected == ["93.184.216.34"]


@pytest.mark.parametrize(
    "place", ["http://127.0.0.2:{port}/secret", "//127.0.0.2:{port}/secret", "http://[::ffff:127.0.0.2]:{port}/secret"]
)
async def test_a_redirect_is_checked_like_the_first_address(server: Server, place: str) -> None:
    server.say("/secret", b"secret")
    url = server.say("/", status="302 Found", Location=place.format(port=server.port))
    assert "not a public address" in await refused(url)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "http://user:word@127.0.0.1/"]
)
async def test_a_redirect_to_anything_but_the_web_is_refused(server: Server, place: str) -> None:
    await refused(server.say("/", status="302 Found", Location=place))
    assert len(server.asked) == 1


async def test_redirects_are_followed_a_few_times(server: Server) -> None:
    for number in range(10):
        server.say(f"/{number}", status="302 Found", Location=f"/{number + 1}")
    server.say("/10", b"here", Content_Type="text/plain; charset=UTF-8")
    found = await fetch(f"http://127.0.0.1:{server.port}/5", MEGABYTE, THIS)
    assert (found.body, found.media_type, found.charset) == (b"here", "text/plain", "UTF-8")
    assert found.url == f"http://127.0.0.1:{server.port}/10"
    assert "redirects more than 5 times" in await refused(f"http://127.0.0.1:{server.port}/0")


@pytest.mark.parametrize(
    "url", ["", "example.org", "file:///etc/passwd", "http://", "http://[::1", "http://a:b/", "http://u:p@x/"]
)
def test_what_is_no_address_of_a_page(url: str) -> None:
    with pytest.raises(WebError):
        target_of(url)


def test_a_url_cannot_carry_another_request() -> None:
    target = target_of("http://münchen.example/ä b\r\nHost: evil?q=\x00")
    assert target.url == "http://xn--mnchen-3ya.example/%C3%A4%20bHost:%20evil?q=%00"


async def test_no_more_is_read_than_the_limit(server: Server) -> None:
    assert (await fetch(server.say("/fits", b"x" * MEGABYTE), MEGABYTE, THIS)).body == b"x" * MEGABYTE
    assert "more than 1000000 bytes" in await refused(server.say("/", b"x" * 3 * MEGABYTE))
    assert "more than 1000000 bytes" in await refused(server.say("/", b"x" * 3 * MEGABYTE, Content_Length="3000000"))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "X-GZIP"])
async def test_a_decompression_bomb_does_not_unfold(server: Server, encoding: str) -> None:
    pack = zlib.compress if encoding == "deflate" else gzip.compress
    fits = server.say("/fits", pack(b"text"), Content_Encoding=encoding)
    assert (await fetch(fits, MEGABYTE, THIS)).body == b"text"
    bomb = pack(b"\0" * 20 * MEGABYTE)
    assert len(bomb) < MEGABYTE
    assert "more than 1000000 bytes" in await refused(server.say("/bomb", bomb, Content_Encoding=encoding))
    assert "compression is broken" in await refused(server.say("/broken", b"text", Content_Encoding=encoding))


async def test_an_encoding_that_was_not_asked_for_is_refused(server: Server) -> None:
    assert "'br'" in await refused(server.say("/", b"x", Content_Encoding="br"))


async def test_a_server_that_does_not_go_on_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_S", 0.05)
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    assert "does not answer in time" in await refused(f"http://127.0.0.1:{port}/")
    silent.close()


async def test_failures_show_nothing_of_the_answer(server: Server) -> None:
    url = server.say("/", b"secret words", status="403 Forbidden")
    assert await refused(url) == f"{url} answers 403."
    server.answers["/"] = b"no HTTP at all\r\n\r\n"
    assert "secret" not in await refused(url)
