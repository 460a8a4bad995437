"""Connect to Redis: to one server, or to a cluster whose nodes the client finds."""

from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from longhaul.settings import Settings

#: What is raised when Redis is away, hangs or refuses a command. The errors of a cluster are no `RedisError`.
FAULTS = (RedisError, RedisClusterException, OSError, TimeoutError)
# One blocking read of streams: how fast a hung Redis and a stream that has gone are noticed.
BLOCK_S = 1.0
MAX_READING_CONNECTIONS = 100_000


def connect(settings: Settings, max_connections: int = 200) -> "Redis":
    """A client that fails within `redis_timeout` seconds and never repeats a write on its own."""
    options = _options(settings, settings.redis_timeout)
    if settings.redis_cluster:
        return _connect_to_cluster(settings, options, max_connections)
    pool = BlockingConnectionPool.from_url(
        _url(settings), max_connections=max_connections, timeout=settings.redis_timeout, **options
    )
    return Redis(connection_pool=pool)


def connect_for_reading(settings: Settings) -> "Redis":
    """A client for the readers of streams, which block for `BLOCK_S`, and for viewers that catch up."""
    options = _options(settings, BLOCK_S + settings.redis_timeout)
    if settings.redis_cluster:
        return _connect_to_cluster(settings, options, MAX_READING_CONNECTIONS)
    pool = ConnectionPool.from_url(_url(settings), max_connections=MAX_READING_CONNECTIONS, **options)
    return Redis(connection_pool=pool)


def _connect_to_cluster(settings: Settings, options: dict[str, Any], max_connections: int) -> "Redis":
    """A client that follows a cluster's redirections. It has the commands of `Redis`, but is no subclass."""
    client = RedisCluster.from_url(
        _url(settings), max_connections=max_connections, cluster_error_retry_attempts=0, **options
    )
    return cast("Redis", client)


def _url(settings: Settings) -> str:
    return settings.redis_url or "redis://127.0.0.1:6379/0"


def _options(settings: Settings, socket_timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": settings.redis_timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
