"""Wires the API: parts, middleware, routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from api import openapi, problems
from api.context import Context
from api.loopback_only import LoopbackGuard
from api.metrics import Metrics
from api.routes import health, sessions, stream, tree, turns
from api.services import Services
from longhaul import __version__, temporal
from longhaul import redis as redis_client
from longhaul.auth import Authenticator
from longhaul.db.database import Database
from longhaul.settings import Settings
from longhaul.streams.reader import connect_for_reading

DESCRIPTION = """A backend for chat copilots whose work must not be lost: every turn is a durable Temporal workflow.

Post a message to a session: if nothing runs there a turn starts, else the message joins the running one. Streams follow
the AI SDK's UI message stream protocol, version 1. Errors are RFC 9457 problems."""


def create_app(settings: Settings) -> FastAPI:
    """The application; its parts are connected when it starts, Temporal and Redis with their first use."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = Services(
            settings=settings,
            database=Database(settings.sqlalchemy_url),
            redis=redis_client.connect(settings),
            stream_redis=connect_for_reading(settings),
            temporal=await temporal.connect(settings, lazy=True, identity="longhaul-api"),
            auth=Authenticator(settings),
        )
        app.state.services = services
        app.state.context = Context(services)
        try:
            yield
        finally:
            services.closing = True
            await services.stream_redis.aclose()
            await services.redis.aclose()
            await services.database.close()

    # With the scripts of /docs on board: a machine that reaches nothing else shows the page as well.
    app = FastAPIOffline(
        title="Longhaul", version=__version__, description=DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    app.include_router(health.router)
    for resource in (sessions, stream, turns, tree):
        app.include_router(resource.router)
    problems.install(app)
    openapi.install(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-longhaul-turn-id", "x-vercel-ai-ui-message-stream", "etag", "retry-after"],
        )
    if settings.auth == "off":
        app.add_middleware(LoopbackGuard, origins=settings.cors_origins)
    app.add_middleware(Metrics)
    return app
