"""Posts a message to a receiver, whose name is resolved and checked for each attempt."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import httpcore2

from longhaul.web.addresses import Network, PublicBackend, RefusedAddressError, may_reach, resolved
from longhaul.web.fetch import Target, WebError, target_of

#: What a receiver answers that wants nothing more.
GONE = 410


class RefusedUrlError(Exception):
    """A webhook may not have this address; the text says why."""


class Reply(NamedTuple):
    """What a receiver answered, or why it did not. Nothing of its body is read: nobody learns what is behind."""

    status_code: int | None
    error: str | None

    @property
    def delivered(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300

    @property
    def gone(self) -> bool:
        """The receiver wants nothing more."""
        return self.status_code == GONE


async def check(url: str, allowed: Sequence[Network]) -> None:
    """Make sure that a webhook may have this address. It is checked again with each connection.

    Raises:
        RefusedUrlError: it is no URL, its host has no address, or one that is not public.
    """
    try:
        target = target_of(url)
        addresses = await resolved(target.host, target.port)
    except WebError as error:
        raise RefusedUrlError(str(error).replace("be fetched", "be a webhook")) from error
    except httpcore2.ConnectError as error:
        raise RefusedUrlError(f"{target.host} cannot be resolved") from error
    if not all(may_reach(address, allowed) for address in addresses):
        raise RefusedUrlError(_private(target.host))
    own = all(any(_in(address, network) for network in allowed) for address in addresses)
    if target.scheme != "https" and not own:
        raise RefusedUrlError("should begin with https://")


def _in(address: str, network: Network) -> bool:
    """Whether an address is in a network: it may be reached although nothing else is allowed, or is public."""
    return may_reach(address, (network,)) and not may_reach(address)


def _private(host: str) -> str:
    return f"{host} is not a public address; webhooks go to public addresses only"


async def post(
    url: str, body: bytes, headers: Mapping[str, str], allowed: Sequence[Network], timeout_s: float
) -> Reply:
    """Send a request and take the status of its answer. A redirect is an answer like any other: it is not followed."""
    target: Target = target_of(url)
    request = httpcore2.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
    )
    try:
        async with asyncio.timeout(timeout_s):
            # A pool of its own: no connection is kept from one receiver's answer to the next.
            async with (
                httpcore2.AsyncConnectionPool(network_backend=PublicBackend(allowed), http2=False) as pool,
                pool.stream("POST", request, headers=list(headers.items()), content=body) as response,
            ):
                status: int = response.status
    except RefusedAddressError:
        return Reply(None, _private(target.host))
    except (TimeoutError, httpcore2.TimeoutException):
        return Reply(None, f"{target.host} does not answer within {timeout_s:g} s")
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, OSError) as error:
        return Reply(None, f"{target.host} cannot be reached ({type(error).__name__})")
    return Reply(status, None if 200 <= status < 300 else f"it answers {status}")
