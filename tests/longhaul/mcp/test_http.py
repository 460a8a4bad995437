"""Servers at an address: results of every kind, changed lists, restarts, and what a server must not get away with."""

import asyncio
import base64
import gzip
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError as Refusal
from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from longhaul.contracts import ToolProgress
from longhaul.mcp import connection
from longhaul.mcp.config import OAuth, ServerConfig
from longhaul.tools import ToolError
from testkit.wait import until
from tests.longhaul.mcp.support import call, connected, context_in, site

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
READS = ToolAnnotations(read_only_hint=True)


def gallery(*extra: str) -> MCPServer:
    """A server of the SDK with results of all kinds, and tools that do nothing under these names."""
    server = MCPServer("gallery")

    @server.tool(annotations=READS, structured_output=False)
    async def paint(colour: str, ctx: Context) -> list[Any]:
        """Paint a picture."""
        await ctx.report_progress(1, 2, "mixing")
        return [f"It is {colour}.", Image(data=PNG, format="png")]

    @server.tool()
    def archive() -> CallToolResult:
        """Everything that a result may hold."""
        blob = BlobResourceContents(
            uri="gallery://files/../../x.bin", mime_type="text/html", blob=base64.b64encode(b"\0\1").decode()
        )
        note = TextResourceContents(uri="gallery://note", text="a note")
        link = ResourceLink(type="resource_link", uri="gallery://plan", name="plan", mime_type="text/plain")
        kept = [EmbeddedResource(type="resource", resource=one) for one in (note, blob)]
        return CallToolResult(content=[TextContent(type="text", text="see"), *kept, link])

    @server.tool()
    def count() -> dict[str, int]:
        """Count."""
        return {"paintings": 3}

    @server.tool()
    def refuse() -> str:
        """Refuse."""
        raise Refusal("The gallery is closed.")

    @server.tool()
    async def grow(ctx: Context) -> str:
        """Offer one more tool."""
        server.add_tool(archive, name="later", description="Was not there before.")
        await ctx.notify_tools_changed()
        return "grown"

    @server.resource("gallery://plan")
    def plan() -> str:
        """The plan of the house."""
        return "first floor"

    for name in extra:
        server.add_tool(archive, name=name)
    return server


async def test_results_of_every_kind(tmp_path: Path) -> None:
    seen: list[ToolProgress] = []
    context = context_in(tmp_path, report=seen.append)
    async with site(gallery().streamable_http_app()) as at, connected({"art": ServerConfig(url=at.url)}) as servers:
        painted = await call(servers, "art__paint", context, colour="red")
        assert painted == (
            f"It is red.\n\n[image/png, {len(PNG)} bytes: the file mcp/art/call-1/2.png of the workspace. share_file "
            "shows it to the person.]"
        )
        assert (tmp_path / "mcp/art/call-1/2.png").read_bytes() == PNG
        assert seen == [ToolProgress(text="mixing", done=1.0, total=2.0)]
        archived = await call(servers, "art__archive", context)
        assert archived.split("\n\n") == [
            "see",
            "[resource gallery://note]\na note",
            "[resource gallery://files/../../x.bin] [application/octet-stream, 2 bytes: the file "
            "mcp/art/call-1/x.bin of the workspace. share_file shows it to the person.]",
            "[resource gallery://plan: plan text/plain]",
        ]
        assert await call(servers, "art__read_resource", context, uri="gallery://plan") == (
            "[resource gallery://plan]\nfirst floor"
        )
        assert json.loads(await call(servers, "art__count", context)) == {"paintings": 3}
        with pytest.raises(ToolError, match="The gallery is closed"):
            await call(servers, "art__refuse", context)
        with pytest.raises(ToolError, match="colour"):
            await call(servers, "art__paint", context, hue="red")
        with pytest.raises(ToolError, match="gallery://nowhere"):
            await call(servers, "art__read_resource", context, uri="gallery://nowhere")


async def test_a_full_workspace_costs_the_file_and_not_the_call(tmp_path: Path) -> None:
    context = context_in(tmp_path, workspace_max_bytes=10)
    async with site(gallery().streamable_http_app()) as at, connected({"art": ServerConfig(url=at.url)}) as servers:
        assert "was not kept: " in await call(servers, "art__paint", context, colour="red")


async def test_a_changed_list_is_heard(tmp_path: Path) -> None:
    app = gallery().streamable_http_app()
    async with site(app) as at, connected({"art": ServerConfig(url=at.url, tools=("grow", "later"))}) as servers:
        assert list(servers.tools) == ["art__grow"]
        await call(servers, "art__grow", context_in(tmp_path))

        async def has_grown() -> bool:
            return list(servers.tools) == ["art__grow", "art__later"]

        await until(has_grown, what="the new tool is offered")


async def test_a_server_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tools stay, calls wait for it, and a changed tool is seen."""
    context = context_in(tmp_path)
    old = gallery("old").streamable_http_app()
    async with site(old) as at, connected({"art": ServerConfig(url=at.url)}) as servers:
        assert "art__old" in servers.tools
        await at.stop()
        calling = asyncio.create_task(call(servers, "art__count", context))
        await asyncio.sleep(0.3)
        assert "art__old" in servers.tools
        await at.start(gallery("new").streamable_http_app())
        assert json.loads(await calling) == {"paintings": 3}

        async def is_new() -> bool:
            return "art__new" in servers.tools and "art__old" not in servers.tools

        monkeypatch.setattr(connection, "LISTEN_PAUSE_S", 0.1)
        with pytest.raises(ToolError, match="old"):
            await call(servers, "art__old", context)
        await at.stop()  # the modern protocol has no session that a restart would end: only its streams end
        await at.start(gallery("new").streamable_http_app())
        await until(is_new, what="the list is that of the new server")


def speaking(answers: Any, *, tools: list[dict[str, Any]] | None = None) -> Starlette:
    """A server of the protocol of 2025 whose answer to a call is `answers(request, id)`."""
    one = {"name": "do", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}

    async def answer(request: Request) -> Response:
        asked = await request.json()
        match asked["method"]:
            case "initialize":
                about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "raw", "version": "1"}}
                result: dict[str, Any] = {"protocolVersion": "2025-06-18", **about}
            case "tools/list":
                result = {"tools": tools or [one]}
            case "tools/call":
                answered: Response = await answers(request, asked["id"])
                return answered
            case _ if "id" not in asked:
                return Response(status_code=202)
            case _:
                error = {"code": -32601, "message": "Method not found"}
                return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "error": error})
        return JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "result": result})

    return Starlette(routes=[Route("/mcp", answer, methods=["POST"])])


def said(id_: int, text: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "result": {"content": [{"type": "text", "text": text}]}}).encode()


async def as_json(request: Request, id_: int) -> Response:
    return Response(said(id_, "x" * 50_000_000), media_type="application/json")


async def as_an_event(request: Request, id_: int) -> Response:
    return Response(b"data: " + said(id_, "x" * 50_000_000) + b"\n\n", media_type="text/event-stream")


async def as_an_event_without_an_end(request: Request, id_: int) -> Response:
    async def stream() -> Any:
        yield b"data: "
        for _ in range(100):
            yield b"x" * 500_000
            await asyncio.sleep(0)

    return StreamingResponse(stream(), media_type="text/event-stream")


async def packed(request: Request, id_: int) -> Response:
    body = gzip.compress(said(id_, "x" * 50_000_000))
    assert len(body) < 100_000
    return Response(body, media_type="application/json", headers={"content-encoding": "gzip"})


@pytest.mark.parametrize("answer", [as_json, as_an_event, as_an_event_without_an_end, packed])
async def test_fifty_megabytes(answer: Any, tmp_path: Path) -> None:
    limit = {"mcp_max_bytes": 1_000_000}
    async with site(speaking(answer)) as at, connected({"raw": ServerConfig(url=at.url)}, **limit) as servers:
        with pytest.raises(ToolError, match=r"more than 1000000 bytes|1000000 byte limit|packed"):
            await call(servers, "raw__do", context_in(tmp_path))
        assert servers.tools, "the server stays"


async def test_an_answer_that_is_none(tmp_path: Path) -> None:
    async def nonsense(request: Request, id_: int) -> Response:
        return JSONResponse({"jsonrpc": "2.0", "id": id_, "result": {"content": [{"type": "text", "text": 5}]}})

    async def refusal(request: Request, id_: int) -> Response:
        return Response("secret inside", status_code=500)

    for answer, words in ((nonsense, "does not follow the protocol"), (refusal, "error response")):
        async with site(speaking(answer)) as at, connected({"raw": ServerConfig(url=at.url)}) as servers:
            with pytest.raises(ToolError, match=words) as refused:
                await call(servers, "raw__do", context_in(tmp_path))
            assert "secret" not in str(refused.value)


async def test_a_server_that_hangs_is_asked_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A call that is stopped leaves nothing behind; the server answers, so the connection stays."""
    hangs, stopped = asyncio.Event(), asyncio.Event()

    async def hang(request: Request, id_: int) -> Response:
        hangs.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), 60)
        return Response(said(id_, "late"), media_type="application/json")

    caplog.set_level(logging.INFO, "longhaul.mcp")
    async with site(speaking(hang)) as at, connected({"raw": ServerConfig(url=at.url)}) as servers:
        calling = asyncio.create_task(call(servers, "raw__do", context_in(tmp_path)))
        await hangs.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        stopped.set()
        assert await call(servers, "raw__do", context_in(tmp_path)) == "late"
    assert caplog.text.count("connected") == 1


async def test_a_token_by_client_credentials(tmp_path: Path) -> None:
    """A server that wants a token gets one of its issuer, asked for with the deployment's own credentials."""
    art, asked, tokens = gallery().streamable_http_app(), [], []

    async def of_resource(request: Request) -> Response:
        return JSONResponse({"resource": at.url, "authorization_servers": [issuer]})

    async def of_issuer(request: Request) -> Response:
        methods = ["client_secret_basic"]
        return JSONResponse(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "response_types_supported": ["code"],
                "token_endpoint_auth_methods_supported": methods,
            }
        )

    async def token(request: Request) -> Response:
        asked.append((request.headers["authorization"], dict(await request.form())))
        tokens.append(f"token-{len(asked)}")
        return JSONResponse({"access_token": tokens[-1], "token_type": "Bearer", "expires_in": 3600})

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != "/mcp":
            await others(scope, receive, send)
        elif (
            scope["type"] == "http"
            and f"Bearer {tokens[-1] if tokens else ''}" != dict(scope["headers"]).get(b"authorization", b"").decode()
        ):
            where = f'Bearer resource_metadata="http://127.0.0.1:{at.port}/.well-known/oauth-protected-resource/mcp"'
            await Response(status_code=401, headers={"www-authenticate": where})(scope, receive, send)
        else:
            await art(scope, receive, send)

    others = Starlette(
        routes=[
            Route("/.well-known/oauth-protected-resource/mcp", of_resource),
            Route("/.well-known/oauth-authorization-server", of_issuer),
            Route("/token", token, methods=["POST"]),
        ]
    )
    async with site(guarded) as at:
        issuer = f"http://127.0.0.1:{at.port}"
        oauth = OAuth(client_id="we", client_secret="quiet", issuer=issuer)
        async with connected({"art": ServerConfig(url=at.url, oauth=oauth)}) as servers:
            assert json.loads(await call(servers, "art__count", context_in(tmp_path))) == {"paintings": 3}
        stranger = oauth.model_copy(update={"issuer": "https://other.example"})
        art, so_far = gallery().streamable_http_app(), len(asked)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.longhaul.mcp.support.PATIENCE_S", 1.0)
            async with connected({"art": ServerConfig(url=at.url, oauth=stranger)}) as servers:
                assert not servers.tools
        assert len(asked) == so_far, "another issuer is not sent the secret"
    basic = base64.b64encode(b"we:quiet").decode()
    assert asked[0][0] == f"Basic {basic}"
    assert asked[0][1]["grant_type"] == "client_credentials"
