"""Longhaul as an MCP server at `/mcp`: start, watch and stop turns from any MCP client.

Each tool asks the API's own routes, in this process and with the caller's own token. So who may do what, limits and
errors are those of the routes, and cannot differ from them. A turn is not one of the protocol's tasks: the SDK knows
their types only. Tools start a turn and wait for it instead.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
from fastapi import FastAPI
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.dependencies import Dependencies, current_caller, dependencies_of
from api.request_body import MESSAGE_BODY_MAX
from api.turn_end import TurnEnd
from longhaul import __version__
from longhaul.contracts import Progress, TurnStatus
from longhaul.db import conversation

PATH = "/mcp"
WAIT_MAX_S = 60.0
NOT_MODIFIED = 304
#: What is shown of a turn.
SHOWN = {
    *("session_id", "turn_id", "status", "round", "tools_running", "waiting_calls", "sub_sessions", "plan"),
    *("usage", "error"),
}
INSTRUCTIONS = """Longhaul runs copilots whose work is not lost. `start_turn` gives the copilot a message and returns
at once; `watch_turn` waits for the answer, again and again if need be; a turn may take hours. A message to a session
that works joins its turn. The copilot may delegate to sub-sessions: `session_tree` shows them, and each can be watched,
stopped and written to like any session. What waits for a person's consent is answered by the person, not here."""
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
STARTS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False)
STOPS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True)

Id = Annotated[str, Field(min_length=1, max_length=64)]


class McpEndpoint:
    """The route. It finds out who calls before anything of the request's body is read."""

    def __init__(self, app: FastAPI) -> None:
        server = MCPServer(
            "longhaul",
            title="Longhaul",
            version=__version__,
            instructions=INSTRUCTIONS,
            log_level="WARNING",
            subscriptions=False,
        )
        _Tools(app).add_to(server)
        # Nothing is kept between two requests, so any API process answers any of them. Names of hosts are checked by
        # `LoopbackOnly` where there is no authentication.
        server.streamable_http_app(
            streamable_http_path=PATH,
            json_response=True,
            stateless_http=True,
            host="",
            max_request_body_size=MESSAGE_BODY_MAX,
        )
        self._manager = server.session_manager

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests until the block ends."""
        running, ended = asyncio.Event(), asyncio.Event()

        async def run() -> None:
            # One task enters and leaves it, whichever task starts and stops the API.
            async with self._manager.run():
                running.set()
                await ended.wait()

        task = asyncio.create_task(run())
        await running.wait()
        try:
            yield
        finally:
            ended.set()
            await task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        await current_caller(request, dependencies_of(request))
        await self._manager.handle_request(scope, receive, send)


def install(app: FastAPI) -> McpEndpoint:
    """Add the route. Only POST: there are no streams that a server would open."""
    endpoint = McpEndpoint(app)
    app.router.routes.append(Route(PATH, endpoint, methods=["POST"], include_in_schema=False))
    return endpoint


class _Tools:
    """What MCP clients may do."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def add_to(self, server: MCPServer) -> None:
        for tool, annotations in (
            (self.start_turn, STARTS),
            (self.watch_turn, READS),
            (self.stop_turn, STOPS),
            (self.list_sessions, READS),
            (self.read_session, READS),
            (self.session_tree, READS),
        ):
            server.add_tool(tool, annotations=annotations)

    async def start_turn(
        self,
        message: Annotated[str, Field(min_length=1, max_length=32_000, description="What the copilot is to do.")],
        context: Context,
        session_id: Annotated[
            str,
            Field(max_length=64, description="The conversation to go on with, a sub-session too; a new one if empty."),
        ] = "",
        message_id: Annotated[
            str, Field(max_length=64, description="A UUID. The same message again, under the same id, is one message.")
        ] = "",
    ) -> dict[str, Any]:
        """Give a copilot a message. Returns at once; watch the turn for its answer."""
        async with self._routes(context) as routes:
            if not session_id:
                session_id = (await _answer(routes, "POST", "/v1/sessions", json={}))["id"]
            sent = {"message": message, "message_id": message_id or str(uuid4())}
            taken = await _answer(routes, "POST", _path(session_id, "messages"), json=sent)
            return {name: taken[name] for name in ("session_id", "turn_id", "message_id", "disposition")}

    async def watch_turn(
        self,
        session_id: Id,
        turn_id: Id,
        context: Context,
        wait_seconds: Annotated[
            float, Field(ge=0, le=WAIT_MAX_S, description="How long to wait for its end, or for a person to be asked.")
        ] = 30.0,
    ) -> dict[str, Any]:
        """How a turn stands, and its answer when it has ended. Call it again while its status is `running`."""
        path = _path(session_id, "turns", turn_id)
        until = time.monotonic() + wait_seconds
        async with self._routes(context) as routes:
            response = await routes.get(path)
            progress = Progress.model_validate(_decoded(response))
            while progress.status is TurnStatus.RUNNING and (left := until - time.monotonic()) > 0:
                etag = {"if-none-match": response.headers["etag"]}
                response = await routes.get(path, params={"wait": min(left, WAIT_MAX_S)}, headers=etag)
                if response.status_code != NOT_MODIFIED:
                    progress = Progress.model_validate(_decoded(response))
        answer = await self._answer_of(progress) if progress.status.final else None
        return {"answer": answer, **progress.model_dump(mode="json", include=SHOWN)}

    async def _answer_of(self, progress: Progress) -> str:
        """The last text of a turn that has ended."""
        dependencies: Dependencies = self._app.state.dependencies
        async with dependencies.database.read() as connection:
            rows = await conversation.rows_of_turn(connection, progress.turn_id)
        return TurnEnd(progress, rows).text

    async def stop_turn(self, session_id: Id, context: Context) -> dict[str, Any]:
        """Stop what a session and its sub-sessions do. What was said is kept. Nothing running is no error."""
        async with self._routes(context) as routes:
            return await _answer(routes, "POST", _path(session_id, "cancel"))

    async def list_sessions(
        self,
        context: Context,
        query: Annotated[str, Field(max_length=200, description="Words of titles or messages to look for.")] = "",
        limit: Annotated[int, Field(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        """The conversations of the person, newest first, with what runs in them."""
        params: dict[str, Any] = {"limit": limit, **({"q": query} if query else {})}
        async with self._routes(context) as routes:
            return await _answer(routes, "GET", "/v1/sessions", params=params)

    async def read_session(
        self, session_id: Id, context: Context, limit: Annotated[int, Field(ge=1, le=200)] = 20
    ) -> dict[str, Any]:
        """The newest messages of a conversation, and what runs in it."""
        async with self._routes(context) as routes:
            return await _answer(routes, "GET", _path(session_id), params={"limit": limit})

    async def session_tree(self, session_id: Id, context: Context) -> dict[str, Any]:
        """A session and all sub-sessions below it, with status and cost of each."""
        async with self._routes(context) as routes:
            return await _answer(routes, "GET", _path(session_id, "tree"))

    @asynccontextmanager
    async def _routes(self, context: Context) -> AsyncIterator[httpx2.AsyncClient]:
        """The API's own routes, for the caller of the tool."""
        request = context.request_context.request
        token = request.headers.get("authorization") if request is not None else None
        headers = {"authorization": token} if token else {}
        transport = httpx2.ASGITransport(app=self._app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            yield client


async def _answer(routes: httpx2.AsyncClient, method: str, path: str, **options: Any) -> dict[str, Any]:
    return _decoded(await routes.request(method, path, **options))


def _decoded(response: httpx2.Response) -> dict[str, Any]:
    """What a route answers.

    Raises:
        ToolError: the route refuses; the text is its problem's.
    """
    decoded: dict[str, Any] = response.json()
    if response.status_code >= 400:
        raise ToolError(f"{decoded['detail']} ({decoded['code']})")
    return decoded


def _path(*names: str) -> str:
    """The address of something below a session; an id cannot lead elsewhere.

    Raises:
        ToolError: an id is none.
    """
    if (wrong := next((name for name in names if not name.strip(".")), None)) is not None:
        raise ToolError(f"There is no session or turn {wrong!r}. (not-found)")
    return "/".join(["/v1/sessions", *(quote(name, safe="") for name in names)])
