"""What tests of MCP share: a context, servers in this process and as programs, and calls as a turn makes them."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from longhaul.contracts import Scope
from longhaul.mcp.config import ServerConfig
from longhaul.mcp.servers import McpServers
from longhaul.settings import load_settings
from longhaul.tools import ToolContext, default_tools

RUDE = Path(__file__).with_name("rude_server.py")
#: Seconds for servers to answer: beyond what a loaded machine needs.
PATIENCE_S = 60.0


def context_in(folder: Path, **more: Any) -> ToolContext:
    return ToolContext(
        user_id="u", session_id="s", turn_id="t", tool_call_id="call-1", folder=folder, scope=Scope(), **more
    )


def program(module: str, *args: str, **more: Any) -> ServerConfig:
    return ServerConfig(command=sys.executable, args=("-m", module, *args), **more)


def rude(**more: Any) -> ServerConfig:
    return ServerConfig(command=sys.executable, args=(str(RUDE),), **more)


def connected(servers: Mapping[str, ServerConfig], **settings: Any) -> Any:
    """The servers, connected until the block ends."""
    return McpServers(servers, default_tools(), load_settings(**settings)).running(PATIENCE_S)


async def call(servers: McpServers, name: str, context: ToolContext, /, **arguments: Any) -> str:
    tool = servers.tools[name]
    assert tool.run is not None
    return await tool.run(tool.parse(json.dumps(arguments)), context)


class Site:
    """An ASGI application on a port of its own, in this process; it can be stopped and started again."""

    def __init__(self, app: Any) -> None:
        self._app = app
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def start(self, app: Any = None) -> None:
        self._app = app or self._app
        config = uvicorn.Config(self._app, port=self.port, log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server.serve())
        async with asyncio.timeout(PATIENCE_S):
            while not self._server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
            self._server = None


@asynccontextmanager
async def site(app: Any) -> AsyncIterator[Site]:
    running = Site(app)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
