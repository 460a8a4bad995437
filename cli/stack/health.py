"""Health checks of children: each gives None when healthy, else what is wrong in a few words."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2

HealthCheck = Callable[[], Awaitable[str | None]]
_SECONDS = 5.0


def local_client(**options: Any) -> httpx2.AsyncClient:
    """A client for plain http on this machine. It has no certificates, whose loading takes longer than a request."""
    return httpx2.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False, **options)


def http_ok(url: str) -> HealthCheck:
    """Healthy when the URL answers 200."""

    async def check() -> str | None:
        try:
            async with local_client(timeout=_SECONDS) as client:
                answer = await client.get(url)
        except httpx2.HTTPError as error:
            return f"{url}: {type(error).__name__} {error}".strip()
        return None if answer.status_code == 200 else f"{url}: {answer.status_code} {answer.text[:200]}"

    return check


def redis_pong(host: str, port: int) -> HealthCheck:
    """Healthy when Redis answers PING (it answers LOADING while it reads its file)."""

    async def check() -> str | None:
        try:
            async with asyncio.timeout(_SECONDS):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(b"PING\r\n")
                    answer = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            return f"redis {host}:{port}: {type(error).__name__} {error}"
        return (
            None if answer.startswith(b"+PONG") else f"redis {host}:{port}: {answer.decode(errors='replace').strip()}"
        )

    return check


def file_exists(path: Path) -> HealthCheck:
    """Healthy once the child has touched its ready file."""

    async def check() -> str | None:
        return None if await asyncio.to_thread(path.exists) else f"{path.name} is not there yet"

    return check


__all__ = ["HealthCheck", "file_exists", "http_ok", "local_client", "redis_pong"]
