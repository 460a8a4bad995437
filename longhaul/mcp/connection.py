"""The connection to one MCP server. It is made anew whenever it is lost, for as long as its process runs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from mcp.client import Client, IncomingMessage
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    CallToolResult,
    Implementation,
    ReadResourceResult,
    Tool,
    ToolListChangedNotification,
)
from pydantic import ValidationError

from longhaul import __version__
from longhaul.mcp.config import ServerConfig
from longhaul.mcp.transport import transport
from longhaul.tools.context import ToolContext, ToolError

log = logging.getLogger(__name__)
#: Waits between two tries to connect.
PAUSE_S, PAUSE_FACTOR, PAUSE_MAX_S = 0.5, 2.0, 30.0
#: Seconds that a call waits for a connection that is being made anew.
PATIENCE_S = 30.0
#: Seconds that a connection has to last for the waits to begin anew.
STABLE_S = 30.0
#: Seconds for the answer of a server that may hang.
CHECK_S = 10.0
#: Seconds between two looks at an idle server's list, and at least between two lists.
LIST_EVERY_S, LIST_PAUSE_S = 300.0, 0.5
#: Seconds until a stream of changes that has ended is opened again.
LISTEN_PAUSE_S = 5.0
#: What a server may list.
PAGES_MAX, TOOLS_MAX = 50, 500
#: Connections in which one call is tried.
TRIES_MAX = 2
#: Seconds for an answer of a tool: the limit is that of the activity.
UNLIMITED_S = 7 * 86_400.0
Result = TypeVar("Result")


class Connection:
    """One server: what it lists, and calls of its tools. `changed` is told whenever the list has changed."""

    def __init__(self, name: str, config: ServerConfig, max_bytes: int, changed: Callable[[], None]) -> None:
        self.name = name
        self.config = config
        #: What the server listed last. It stays while the server is away.
        self.listed: Sequence[Tool] = ()
        self.has_resources = False
        #: Why there is no connection; empty if there is one.
        self.trouble = "it has not answered yet"
        #: The last words of a program that has ended, for the operator; they may hold secrets.
        self.last_words = ""
        self._max_bytes = max_bytes
        self._changed = changed
        self._client: Client | None = None
        self._made = asyncio.Event()
        self._news = asyncio.Event()
        self._calls = 0
        self._lost = ""
        self._closed = False

    def close(self) -> None:
        """Let `keep` end, also where the SDK turns its cancellation into another error."""
        self._closed = True

    async def keep(self) -> None:
        """Connect, listen, and connect again when the connection is lost; runs until it is cancelled."""
        pause, loop = PAUSE_S, asyncio.get_running_loop()
        while not self._closed:
            self._lost, made_at = "", loop.time()
            self._news.clear()
            try:
                async with self._opened() as client:
                    # Results are texts for the model. To check them would run a server's patterns in our process.
                    client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]
                    await self._list(client)
                    self._open(client)
                    log.info("MCP server %s: connected, %d tools", self.name, len(self.listed))
                    await self._watch(client)
            except Exception as error:  # noqa: BLE001  # whatever a server does, the others and the worker go on
                self._end(_words(error))
            finally:
                self._client = None
                self._made.clear()
            self.trouble = self._lost or "it has closed the connection"
            pause = PAUSE_S if loop.time() - made_at > STABLE_S else pause
            log.warning("MCP server %s: %s; connecting again in %g s", self.name, self.said, pause)
            await asyncio.sleep(pause)
            pause = min(pause * PAUSE_FACTOR, PAUSE_MAX_S)

    async def until_made(self) -> None:
        """Wait for a connection."""
        await self._made.wait()

    async def call(
        self, tool_name: str, arguments: dict[str, Any], context: ToolContext, *, again: bool
    ) -> CallToolResult:
        """The result of a tool. `again`: whether a call may be sent a second time when its answer is lost.

        Raises:
            ToolError: the server is away, refuses, or its answer was lost.
        """

        async def show(progress: float, total: float | None, message: str | None) -> None:
            context.progress(message or "", done=progress, total=total)

        return await self._answer(lambda client: client.call_tool(tool_name, arguments, UNLIMITED_S, show), again=again)

    async def read(self, uri: str) -> ReadResourceResult:
        """A resource of the server. Raises as `call`."""
        return await self._answer(lambda client: client.read_resource(uri, cache_mode="bypass"), again=True)

    async def _answer(self, ask: Callable[[Client], Awaitable[Result]], *, again: bool) -> Result:
        for last in (*[False] * (TRIES_MAX - 1), True):
            client = await self._connected()
            self._calls += 1
            try:
                return await ask(client)
            except asyncio.CancelledError:
                self._close(client, "it may hang")  # stopped or timed out; `_watch` opens it again if it answers
                self._news.set()
                raise
            except MCPError as error:
                # The server was started anew and does not know our session: it has not run the call.
                unknown_session = error.code == INVALID_REQUEST and error.message == "Session terminated"
                too_large = error.message.startswith("SSE stream failed")  # the connection itself is as it was
                if (error.code != CONNECTION_CLOSED or too_large) and not unknown_session:
                    raise ToolError(f"{self.name}: {error.message}") from error
                self._give_up(client, "it has ended the session" if unknown_session else error.message)
                if last or not (again or unknown_session):
                    raise ToolError(
                        f"The connection to the MCP server {self.name} was lost during the call ({self._why()}). It is "
                        "not known whether the call took effect."
                    ) from error
            except ValidationError as error:
                raise ToolError(
                    f"The MCP server {self.name} gave an answer that does not follow the protocol."
                ) from error
            finally:
                self._calls -= 1
        raise AssertionError

    async def _connected(self) -> Client:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._made.wait()
        if self._client is None:
            raise ToolError(f"The MCP server {self.name} does not answer: {self.trouble}. Nothing was sent to it.")
        return self._client

    def _opened(self) -> Client:
        return Client(
            transport(self.config, self._max_bytes, self._end),
            read_timeout_seconds=self.config.start_timeout,
            message_handler=self._hear,
            client_info=Implementation(name="longhaul", version=__version__),
            cache=None,
        )

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._news.set()

    @property
    def said(self) -> str:
        """Why there is no connection, for the operator."""
        return f"{self.trouble}: {self.last_words}" if self.last_words else self.trouble

    def _end(self, why: str, last_words: str = "") -> None:
        if not self._lost:
            self._lost, self.last_words = why, last_words
        self._news.set()

    def _give_up(self, client: Client, why: str) -> None:
        """Make the connection anew, if it is still the one that failed. Calls wait for the next one."""
        if self._close(client, why):
            self._end(why)

    def _open(self, client: Client) -> None:
        self._client, self.trouble = client, ""
        self._made.set()

    def _close(self, client: Client, why: str) -> bool:
        """Let calls wait, unless there is another connection by now."""
        if client is not self._client:
            return False
        self._client, self.trouble = None, why
        self._made.clear()
        return True

    def _why(self) -> str:
        return self._lost or self.trouble

    async def _watch(self, client: Client) -> None:
        """List the tools again when they have changed, and now and then; returns when the connection is lost."""
        listening = asyncio.create_task(self._listen(client))
        try:
            while not self._lost:
                try:
                    async with asyncio.timeout(LIST_EVERY_S):
                        await self._news.wait()
                except TimeoutError:
                    if self._calls:  # it may be busy with them
                        continue
                self._news.clear()
                if not self._lost:
                    async with self._answering():
                        await self._list(client)
                    self._open(client)
                    await asyncio.sleep(LIST_PAUSE_S)
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(CHECK_S):
                yield
        except TimeoutError:
            self._end(f"it did not answer for {CHECK_S:g} seconds")
            raise

    async def _listen(self, client: Client) -> None:
        """Hear of changed lists from servers of the protocol of 2026; older ones say so unasked."""
        tools = client.server_capabilities.tools
        if tools is None or not tools.list_changed:
            return
        while True:
            try:
                async with client.listen(tools_list_changed=True) as subscription:
                    async for _ in subscription:
                        self._news.set()
            except ListenNotSupportedError:
                return
            except (MCPError, SubscriptionLost, TimeoutError) as error:
                log.debug("MCP server %s: %s", self.name, error)
            await asyncio.sleep(LISTEN_PAUSE_S)
            self._news.set()  # what changed meanwhile was not heard

    async def _list(self, client: Client) -> None:
        listed: list[Tool] = []
        cursor = None
        for _ in range(PAGES_MAX):
            page = await client.list_tools(cursor=cursor)
            listed += page.tools
            cursor = page.next_cursor
            if not cursor or len(listed) > TOOLS_MAX:
                break
        self.has_resources = await _has_resources(client)
        if listed != self.listed:
            self.listed = listed[:TOOLS_MAX]
            self._changed()


async def _has_resources(client: Client) -> bool:
    if client.server_capabilities.resources is None:
        return False
    with suppress(MCPError):  # it has the one kind and does not know the other
        if (await client.list_resources()).resources:
            return True
    with suppress(MCPError):
        return bool((await client.list_resource_templates()).resource_templates)
    return False


async def _unchecked(name: str, result: CallToolResult) -> None:
    """In the place of the SDK's check of a result."""


def _words(error: BaseException) -> str:
    """Why a connection failed, in a few words without what a server has said at length."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (str(error) or type(error).__name__)[:300]
