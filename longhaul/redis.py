"""Connect to Redis."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from longhaul.settings import Settings


def connect(settings: Settings, max_connections: int = 200) -> "Redis":
    """A client that fails within `redis_timeout` seconds and never repeats a write on its own."""
    return Redis(
        connection_pool=BlockingConnectionPool.from_url(
            settings.redis_url or "redis://127.0.0.1:6379/0",
            max_connections=max_connections,
            timeout=settings.redis_timeout,
            socket_timeout=settings.redis_timeout,
            socket_connect_timeout=settings.redis_timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    )
