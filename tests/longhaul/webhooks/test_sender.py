"""Which addresses webhooks reach: public ones, checked when they are given and with each connection."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest

from longhaul.web import addresses
from longhaul.web.addresses import Network
from longhaul.webhooks import sender
from longhaul.webhooks.sender import RefusedUrlError, check, post
from testkit.receiver import Receiver

THIS: list[Network] = [ip_network("127.0.0.1/32")]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    await found.start()
    yield found
    await found.stop()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://127.0.0.1/hook", "not a public address"),
        ("https://localhost/hook", "not a public address"),
        ("https://169.254.169.254/latest/meta-data", "not a public address"),
        ("https://[::1]/", "not a public address"),
        ("https://[fe80::1]/", "not a public address"),
        ("https://[::ffff:10.0.0.1]/", "not a public address"),
        ("https://2130706433/", "not a public address"),
        ("https://168.63.129.16/", "not a public address"),
        ("http://93.184.216.34/", "should begin with https://"),
        ("ftp://93.184.216.34/", "Only http:// and https://"),
        ("https://user:secret@93.184.216.34/", "user name or password"),
        ("nonsense", "Only http:// and https://"),
        ("https://no-such-host.invalid/", "cannot be resolved"),
    ],
)
async def test_addresses_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(RefusedUrlError, match=why) as raised:
        await check(url, ())
    assert "secret" not in str(raised.value)


async def test_public_addresses_and_those_that_the_operator_allows() -> None:
    await check("https://93.184.216.34:8443/hook?x=1", ())
    await check("http://127.0.0.1:8000/hook", THIS)
    with pytest.raises(RefusedUrlError, match="https://"):
        await check("http://93.184.216.34/hook", THIS)


async def test_a_name_that_leads_elsewhere_at_the_connect(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name was public when the webhook was made."""

    async def public(host: str, port: int) -> list[str]:
        return ["93.184.216.34"]

    monkeypatch.setattr(sender, "resolved", public)
    await check(f"https://localhost:{receiver.port}/", ())
    assert addresses.resolved is not public
    reply = await post(f"http://localhost:{receiver.port}/", b"{}", {}, (), 5)
    assert (reply.status_code, reply.delivered) == (None, False)
    assert "not a public address" in (reply.error or "")
    assert receiver.received == []


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    """Neither to a private address nor to a public one."""
    receiver.answers, receiver.location = [302], f"http://127.0.0.1:{receiver.port}/internal"
    reply = await post(receiver.url, b"{}", {}, THIS, 5)
    assert (reply.status_code, reply.delivered, reply.error) == (302, False, "it answers 302")
    assert len(receiver.received) == 1


async def test_what_a_receiver_answers(receiver: Receiver) -> None:
    receiver.answers = [204, 500, 410]
    replies = [await post(receiver.url, b"{}", {"webhook-id": "x"}, THIS, 5) for _ in range(3)]
    assert [reply.delivered for reply in replies] == [True, False, False]
    assert [reply.gone for reply in replies] == [False, False, True]
    assert {one.id for one in receiver.received} == {"x"}
    await receiver.stop()
    reply = await post(receiver.url, b"{}", {}, THIS, 5)
    assert reply.error == "127.0.0.1 cannot be reached (ConnectError)"


async def test_a_receiver_that_does_not_answer() -> None:
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    reply = await post(f"http://127.0.0.1:{port}/", b"{}", {}, THIS, 0.2)
    assert reply.error == "127.0.0.1 does not answer within 0.2 s"
    silent.close()
