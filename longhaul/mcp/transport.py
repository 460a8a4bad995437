"""The ways to a server: a program's pipes, or HTTP. What a server sends in one message is limited before it is parsed.

The SDK's own stdio transport reads lines of any length and hands on our environment's HOME and SHELL; its HTTP
transport limits events, and no other answers.
"""

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import httpx2
from mcp.client import Transport
from mcp.client.auth import TokenStorage
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from longhaul.mcp.config import OAuth, ServerConfig

log = logging.getLogger(__name__)
#: Seconds for a program to end after its input has, and then after SIGTERM.
EXIT_S, TERM_S = 2.0, 2.0
#: Seconds for which a server that refuses connections is tried again: nothing has been sent, so that does no harm.
CONNECT_PATIENCE_S, CONNECT_PAUSE_S = 15.0, 0.25
HTTP_TIMEOUT = httpx2.Timeout(30.0, read=None)
SAID_MAX_CHARS = 300
CLOSED = "its program has closed its output"

#: Told why a program's pipes have ended, and the last line that it wrote beside the protocol, which may hold secrets.
Lost = Callable[[str, str], None]


def transport(config: ServerConfig, max_bytes: int, lost: Lost) -> Transport:
    """The way to a server. `lost` is told once, when a program's pipes end."""
    return _program(config, max_bytes, lost) if config.command else _http(config, max_bytes)


@asynccontextmanager
async def _program(config: ServerConfig, max_bytes: int, lost: Lost) -> AsyncGenerator[Any]:
    """Start a server's program, and end it with all that it has started.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        config.command,
        *config.args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=config.environment(),
        cwd=config.cwd,
        start_new_session=True,
        # The reader holds at most twice as much, and then lets the program wait.
        limit=max_bytes,
    )
    assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018  # they are pipes
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    received, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, to_send = anyio.create_memory_object_stream[SessionMessage](0)
    said: deque[str] = deque(maxlen=1)

    async def read() -> None:
        # Who waits for an answer is woken at the end of this block, and then asks why.
        async with received:
            try:
                while line := await stdout.readline():
                    await received.send(_message(line))
                lost(await how_it_ended(), said[0] if said else "")
            except ValueError:
                lost(f"it sent a message of more than {max_bytes} bytes", "")
            except (anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError):
                lost(CLOSED, "")

    async def how_it_ended() -> str:
        with suppress(TimeoutError):
            code = await asyncio.wait_for(process.wait(), EXIT_S)
            return f"its program has ended with exit code {code}"
        return CLOSED

    async def write() -> None:
        async with to_send:
            async for message in to_send:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                with suppress(ConnectionError):  # the reader notices the end
                    stdin.write(f"{text}\n".encode())
                    await stdin.drain()

    async def listen() -> None:
        """Keep the last line that the program says beside the protocol. Lines without end are read and dropped."""
        while True:
            try:
                line = await stderr.readline()
            except ValueError:
                continue
            if not line:
                return
            if text := line.decode("utf-8", "replace").strip()[:SAID_MAX_CHARS]:
                said.append(text)
                log.debug("MCP server %s: %s", config.command, text)

    async with anyio.create_task_group() as tasks:
        for work in (read, write, listen):
            tasks.start_soon(work)
        try:
            yield incoming, outgoing
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
            tasks.cancel_scope.cancel()
            for stream in (incoming, outgoing):
                stream.close()


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        return ValueError("The server wrote a line that is no JSON-RPC message.")


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a program as the specification says: first its input ends, then it is asked, then it is killed."""
    if process.stdin is not None:
        process.stdin.close()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), EXIT_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)  # what it has started, also after its own end
        except ProcessLookupError:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), TERM_S)


@asynccontextmanager
async def _http(config: ServerConfig, max_bytes: int) -> AsyncGenerator[Any]:
    async def limit(response: httpx2.Response) -> None:
        # Unpacked, an answer could be a thousand times as large as what was counted.
        if response.headers.get("content-encoding", "identity") != "identity":
            response.stream = _Limited(response.stream, 0, "the server packed its answer, unasked")
        elif not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            response.stream = _Limited(response.stream, max_bytes, f"the server sent more than {max_bytes} bytes")

    headers = {name: value.get_secret_value() for name, value in config.headers.items()}
    async with (
        _Client(
            headers={**headers, "accept-encoding": "identity"},
            auth=_auth(config.url, config.oauth) if config.oauth is not None else None,
            timeout=HTTP_TIMEOUT,
            event_hooks={"response": [limit]},
        ) as client,
        streamable_http_client(config.url, http_client=client, max_sse_event_size=max_bytes) as streams,
    ):
        yield streams


class _Client(httpx2.AsyncClient):
    """A client that waits for a server that is being started again."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        loop = asyncio.get_running_loop()
        until = loop.time() + CONNECT_PATIENCE_S
        while True:
            try:
                return await super().send(request, **options)
            except httpx2.ConnectError:
                if loop.time() > until:
                    raise
            await asyncio.sleep(CONNECT_PAUSE_S)


class _Limited(httpx2.AsyncByteStream):
    """The body of an answer, up to a number of bytes."""

    def __init__(self, body: Any, max_bytes: int, excess: str) -> None:
        self._body = body
        self._max_bytes = max_bytes
        self._excess = excess

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._body:
            received += len(chunk)
            if received > self._max_bytes:
                raise httpx2.StreamError(self._excess)
            yield chunk

    async def aclose(self) -> None:
        await self._body.aclose()


def _auth(url: str, oauth: OAuth) -> httpx2.Auth:
    return ClientCredentialsOAuthProvider(
        server_url=url,
        storage=_Memory(),
        client_id=oauth.client_id,
        client_secret=oauth.client_secret.get_secret_value(),
        scope=oauth.scope,
        issuer=oauth.issuer,
    )


class _Memory(TokenStorage):
    """Keeps a token for as long as the connection lasts. The next one asks for another."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info
