"""Which addresses may be reached: public ones, and the networks that an operator allows.

A name is resolved here, every address of it is checked, and the connection goes to a checked address. So a name that
resolves differently the next time (DNS rebinding) leads nowhere else, and it does not matter how an address is written:
`http://2130706433/` and `http://[::ffff:127.0.0.1]/` are 127.0.0.1 to the resolver too.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence

import httpcore2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Answer machines of clouds under public addresses.
METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})
#: Addresses of IPv6 that lead to an address of IPv4 in their last 32 bits.
TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
#: Not public, although Python 3.11 takes them for it: site-local, segment routing, documentation, relays of 6to4.
NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("fec0::/10", "5f00::/16", "3fff::/20", "192.88.99.0/24")))
ADDRESSES_MAX = 3


class RefusedAddressError(Exception):
    """A host has an address that must not be reached. The text names the host, and not where it leads."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} is not a public address; this tool reaches public addresses only.")


def may_reach(address: str, allowed: Sequence[Network] = ()) -> bool:
    """Whether an address is public, or in an allowed network. Every address of IPv4 inside it has to be, too."""
    ip: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip in network for network in allowed):
        return True
    return all(map(_is_public, (ip, *_inner(ip))))


def _is_public(ip: Address) -> bool:
    refused = ip.is_multicast or ip in METADATA or any(ip in network for network in NOT_PUBLIC)
    return ip.is_global and not refused


def _inner(ip: Address) -> Iterable[Address]:
    if not isinstance(ip, ipaddress.IPv6Address):
        return
    if ip.sixtofour is not None:
        yield ip.sixtofour
    if any(ip in network for network in TRANSLATED):
        yield ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)


class PublicBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections to checked addresses only."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to a checked address of `host`.

        Raises:
            RefusedAddressError: it has one that must not be reached.
            httpcore2.ConnectError: it has none, or none answers.
        """
        addresses = await resolved(host, port)
        if not all(may_reach(address, self._allowed) for address in addresses):
            raise RefusedAddressError(host)
        error: httpcore2.ConnectError | httpcore2.ConnectTimeout = httpcore2.ConnectError(f"{host} has no address")
        for address in addresses[:ADDRESSES_MAX]:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as failure:
                error = failure
        raise error

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore2.AsyncNetworkStream:
        """Refused: nothing public is behind one."""
        raise RefusedAddressError(path)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def resolved(host: str, port: int) -> list[str]:
    """All addresses of a host, each once, in the resolver's order.

    Raises:
        httpcore2.ConnectError: it has none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(f"{host} cannot be resolved") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
