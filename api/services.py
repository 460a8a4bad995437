"""What every request works with, built once when the process starts."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from redis.asyncio import Redis
from starlette.requests import HTTPConnection
from temporalio.client import Client

from longhaul.auth import Authenticator
from longhaul.db.database import Database
from longhaul.settings import Settings


@dataclass
class Services:
    """The parts behind the API. `closing`: this process was told to end, so streams end for others to go on with."""

    settings: Settings
    database: Database
    redis: "Redis"
    stream_redis: "Redis"
    temporal: Client
    auth: Authenticator
    closing: bool = field(default=False)


def services_of(connection: HTTPConnection) -> Services:
    found: Services = connection.app.state.services
    return found


Parts = Annotated[Services, Depends(services_of)]


async def user_of(connection: HTTPConnection, parts: Parts) -> str:
    """The calling user. EventSource and WebSockets cannot send headers, so what only reads may bring `?token=`."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return await parts.auth.user(token.strip())
    reads = connection.scope.get("method", "GET") == "GET"
    return await parts.auth.user(connection.query_params.get("token") if reads else None)


User = Annotated[str, Depends(user_of)]
