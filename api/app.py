"""Wires the API: dependencies, middleware, routes."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from api import middleware, openapi, page, problems
from api.chat_stream import RUN_ID, TAIL_INDEX
from api.dependencies import connected
from api.idempotency import REPLAYED, Idempotency
from api.routes import (
    admin,
    approvals,
    ask,
    chat,
    completions,
    credentials,
    edits,
    files,
    health,
    me,
    models,
    schedules,
    sessions,
    shares,
    stream,
    timeline,
    tool_calls,
    tree,
    turns,
    usage,
    webhooks,
)
from longhaul import __version__
from longhaul.settings import Settings

DESCRIPTION = """A backend for chat copilots whose work must not be lost: every turn is a durable Temporal workflow.

Post a message to a session: if nothing runs there a turn starts, else the message joins the running one. Streams follow
the AI SDK's UI message stream protocol, version 1. Errors are RFC 9457 problems. Every answer has an `x-request-id`."""


def create_app(settings: Settings) -> FastAPI:
    """The application. Its parts are connected when it starts, Temporal and Redis with their first use."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            app.state.dependencies = await stack.enter_async_context(connected(settings))
            if settings.mcp_server:
                from api import mcp_server  # the SDK takes half a second, which others need not wait

                await stack.enter_async_context(mcp_server.install(app).running())
            yield

    # It serves the scripts of /docs itself, so the page works on a machine without internet access.
    app = FastAPIOffline(
        title="Longhaul",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        generate_unique_id_function=openapi.operation_id,
        redirect_slashes=False,  # A redirect of `/v1/sessions/?token=...` would send the token on.
    )
    app.include_router(health.router)
    if not settings.api_metrics_port:
        app.include_router(health.metrics_router)
    core = (sessions, stream, turns, timeline, tree, me, files, chat, ask, completions, edits, approvals, shares)
    for resource in (*core, credentials, schedules, webhooks, models, usage, admin, tool_calls):
        app.include_router(resource.router)
    app.include_router(credentials.callback_router)
    problems.install(app)
    openapi.install(app)
    page.install(app)
    # The middleware that is added last is the outermost.
    app.add_middleware(Idempotency)
    app.add_middleware(middleware.NoNulInPath)
    app.add_middleware(middleware.UnexpectedErrors)
    app.add_middleware(middleware.CloseUnreadBodies)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=[
                *("x-longhaul-turn-id", "x-vercel-ai-ui-message-stream", "etag", "retry-after", "x-request-id"),
                *(RUN_ID, TAIL_INDEX, REPLAYED),
            ],
        )
    if settings.auth == "off":
        app.add_middleware(middleware.LoopbackOnly, origins=settings.cors_origins)
    app.add_middleware(middleware.RequestMetrics)
    app.add_middleware(middleware.RequestId)
    return app
