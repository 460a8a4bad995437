"""The Temporal client that API, worker and CLI share, and one name for "Temporal cannot be reached"."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from temporalio.client import Client, Interceptor, Plugin
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from copilot.errors import UnavailableError
from copilot.settings import Settings

DEFAULT_ADDRESS = "localhost:7233"

# What gRPC calls "not now"; everything else is an answer.
NOT_NOW = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
        RPCStatusCode.INTERNAL,
        RPCStatusCode.UNKNOWN,
    }
)


def workflow_id(session_id: str) -> str:
    """The one workflow id of a session's turns: two of them cannot run at once because Temporal does not let them."""
    return f"turn:{session_id}"


def _config(settings: Settings) -> ClientConnectConfig:
    """What Temporal's own tools are told, our settings first."""
    config = ClientConfig.load_client_connect_config()
    if settings.temporal_address or "target_host" not in config:
        config["target_host"] = settings.temporal_address or DEFAULT_ADDRESS
    if "temporal_namespace" in settings.model_fields_set or "namespace" not in config:
        config["namespace"] = settings.temporal_namespace
    return config


def address(settings: Settings) -> str:
    """Where Temporal is."""
    return _config(settings)["target_host"]


async def connect(
    settings: Settings,
    *,
    lazy: bool = False,
    interceptors: Sequence[Interceptor] = (),
    plugins: Sequence[Plugin] = (),
    runtime: Runtime | None = None,
    identity: str | None = None,
) -> Client:
    """Connect the way every Temporal tool does (`TEMPORAL_*`, profiles of `temporal.toml`), our settings first.

    `lazy`: connect with the first call, so a process can start before Temporal does.
    """
    return await Client.connect(
        **_config(settings),
        data_converter=pydantic_data_converter,
        interceptors=interceptors,
        plugins=plugins,
        runtime=runtime,
        identity=identity,
        lazy=lazy,
    )


@asynccontextmanager
async def reachable(seconds: float) -> AsyncIterator[None]:
    """Bound calls to Temporal, the SDK's own retries included; answers such as NOT_FOUND pass through.

    Raises:
        UnavailableError: no answer in time.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UnavailableError("Temporal") from error
    except RPCError as error:
        if error.status in NOT_NOW:
            raise UnavailableError("Temporal") from error
        raise
    except RuntimeError as error:
        # What the first call of a lazy client raises when it finds no server; only its text tells it from a bug.
        if "client connect" in str(error):
            raise UnavailableError("Temporal") from error
        raise
