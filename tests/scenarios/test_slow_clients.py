"""Clients that do not read, and clients that are gone: they hold nothing up and cost bounded memory."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import psutil

from testkit.pool import ProductOptions
from testkit.process import Process
from testkit.product import Product
from testkit.servers import script
from testkit.wait import until
from tests.scenarios.support import next_message_works, same_as_stored

MIB = 1024 * 1024
SIZE = 10_000_000
PRODUCT: ProductOptions = {}  # of its own: streams and memory of its API are counted
SLOW = 12
GROWTH = 48 * MIB  # for all of them together, who ask for 120 MB


def memory_of(process: Process) -> int:
    """Bytes of memory that a process has now."""
    return int(psutil.Process(process.pid).memory_info().rss)


@contextmanager
def reader_of(product: Product, session: str, message: str = "") -> Iterator[socket.socket]:
    """A client with a tiny receive buffer that has asked for a stream and reads nothing of it by itself."""
    url = urlsplit(product.url())
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((url.hostname, url.port))
        body = json.dumps({"message": message}) if message else ""
        method = "POST" if message else "GET"
        head = f"Host: {url.netloc}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(f"{method} /v1/sessions/{session}/stream HTTP/1.1\r\n{head}{body}".encode())
        yield connection


async def until_open(product: Product, wanted: int) -> None:
    """Wait until the API serves this many streams, by its own count."""

    async def right() -> bool:
        text = (await product.api.http.get("/metrics")).text
        return f"\nlonghaul_streams_open {wanted}.0\n" in text

    await until(right, what=f"{wanted} streams are open")


def read_to_the_end(connection: socket.socket) -> bytes:
    connection.settimeout(60)
    received = bytearray()
    while chunk := connection.recv(1 << 20):
        received += chunk
    return bytes(received)


async def test_clients_that_read_nothing(product: Product) -> None:
    """The turn ends, others see all of it, and the API's memory does not grow with what they do not take."""
    session = await product.api.create_session()
    await next_message_works(product, session)
    before = memory_of(product.apis[0])
    with ExitStack() as slow:
        poster = slow.enter_context(
            reader_of(product, session, script({"speak": SIZE, "unit": "bytes"}, {"ttft": 4000}))
        )
        await until_open(product, 1)
        for _ in range(SLOW):
            slow.enter_context(reader_of(product, session))
        await until_open(product, SLOW + 1)
        turn = (await product.api.turns(session))[0]["turn_id"]
        assert (await product.api.wait_for_turn(session, turn))["status"] == "completed"
        grown = memory_of(product.apis[0]) - before
        assert grown < GROWTH, f"{grown / MIB:.0f} MiB for {SLOW + 1} clients that read nothing"
        await next_message_works(product, session)
        received = await asyncio.to_thread(read_to_the_end, poster)
        assert len(received) > SIZE
        assert b"data: [DONE]" in received[-200:]
    await until_open(product, 0)
    assert memory_of(product.apis[0]) - before < GROWTH


async def test_beside_one_that_reads(product: Product) -> None:
    """A client gets its 10 MB whole while others of the same turn do not move, and some have gone by a reset."""
    session = await product.api.create_session()
    live = await product.api.open(session, script({"speak": SIZE, "unit": "bytes"}, {"ttft": 3000}))
    for number in range(SLOW):
        with reader_of(product, session) as connection:
            connection.settimeout(10)
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await asyncio.to_thread(connection.recv, 100)
    before = memory_of(product.apis[0])
    with reader_of(product, session) as first, reader_of(product, session) as second:
        for connection in (first, second):
            connection.settimeout(10)
            await asyncio.to_thread(connection.recv, 10)
        log = await live.done()
        await same_as_stored(product, session, log)
        assert len(log.text()) >= SIZE
        assert memory_of(product.apis[0]) - before < GROWTH
