"""All MCP servers of a process: their tools, as long as they fit into a request."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from longhaul.mcp.config import ServerConfig
from longhaul.mcp.connection import Connection
from longhaul.mcp.tools import SEPARATOR, chars_of, tools_of
from longhaul.settings import Settings
from longhaul.tools.registry import SCHEMAS_MAX_CHARS, Registry, Tool

log = logging.getLogger(__name__)
#: Seconds that a process waits at its start for its servers. Later ones add their tools when they answer.
START_S = 15.0


class McpServers:
    """The servers of a deployment, as a source of tools beside those of `own`."""

    def __init__(self, servers: Mapping[str, ServerConfig], own: Registry, settings: Settings) -> None:
        self._own = {tool.name for tool in own}
        self._room = SCHEMAS_MAX_CHARS - chars_of(list(own))
        self._disabled = frozenset(settings.disabled_tools)
        self._connections = [
            Connection(name, config, settings.mcp_max_bytes, self._take) for name, config in servers.items()
        ]
        self._tools: Mapping[str, Tool] = {}
        self._said: frozenset[str] = frozenset()

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The tools that can be called now, by name."""
        return self._tools

    @property
    def troubles(self) -> Sequence[str]:
        """What keeps servers and tools out, for the operator."""
        away = (f"MCP server {one.name}: {one.said}" for one in self._connections if one.trouble)
        return [*away, *sorted(self._said)]

    def why_missing(self, tool_name: str) -> str | None:
        """Why a tool of a server is not there now; None if the name is not one of a server's tools."""
        for one in self._connections:
            if tool_name.startswith(one.name + SEPARATOR) and one.trouble:
                return f"the MCP server {one.name} does not answer: {one.trouble}"
        return None

    @asynccontextmanager
    async def running(self, patience_s: float = START_S) -> AsyncIterator["McpServers"]:
        """Keep connections to all servers until the block ends."""
        keepers = [asyncio.create_task(one.keep()) for one in self._connections]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await asyncio.gather(*(one.until_made() for one in self._connections))
            for trouble in self.troubles:
                log.warning("%s", trouble)
            yield self
        finally:
            for one, keeper in zip(self._connections, keepers, strict=True):
                one.close()
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    def _take(self) -> None:
        """Take over what the servers list now. A server whose tools do not fit is left out whole."""
        room, taken = self._room, dict[str, Tool]()
        said = set()
        for one in self._connections:
            tools, defects = tools_of(one)
            said |= {f"MCP server {one.name}: {defect}" for defect in defects}
            said |= {
                f"MCP server {one.name}: there is a tool {tool.name!r}" for tool in tools if tool.name in self._own
            }
            tools = [tool for tool in tools if tool.name not in self._own | self._disabled]
            if (chars := chars_of(tools)) > room:
                said.add(
                    f"MCP server {one.name} is too large: the schemas of its {len(tools)} tools take {chars} "
                    f"characters, and {room} of {SCHEMAS_MAX_CHARS} are left. None of them is offered; name those that "
                    'you need in "tools" of its entry.'
                )
                continue
            room -= chars
            taken |= {tool.name: tool for tool in tools}
        for words in sorted(said - self._said):
            log.warning("%s", words)
        self._said = frozenset(said)
        self._tools = taken
