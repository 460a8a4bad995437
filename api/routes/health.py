"""Liveness, readiness, metrics."""

import asyncio
import logging
from datetime import timedelta

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from temporalio.service import RPCError

from api.dependencies import Dependencies, Deps
from api.schemas.health import Health, Readiness
from longhaul import temporal
from longhaul.errors import UnavailableError
from longhaul.redis import FAULTS

log = logging.getLogger(__name__)
router = APIRouter(tags=["operations"])
metrics_router = APIRouter(tags=["operations"])
TIMEOUT_S = 2.0


@router.get("/healthz", summary="Alive")
async def healthz() -> Health:
    """Answers as long as the process runs; it checks nothing else."""
    return Health()


@router.get("/readyz", summary="Ready", responses={503: {"model": Readiness, "description": "Not ready."}})
async def readyz(deps: Deps, response: Response) -> Readiness:
    """Database and Temporal must be there; without Redis the API is degraded and ready."""
    database, server, redis = await asyncio.gather(_database(deps), _temporal(deps), _redis(deps))
    ready = database and server
    response.status_code = 200 if ready else 503
    status = ("ready" if redis else "degraded") if ready else "unready"
    return Readiness.model_validate({"status": status, "database": database, "temporal": server, "redis": redis})


async def _database(deps: Dependencies) -> bool:
    try:
        async with asyncio.timeout(TIMEOUT_S), deps.database.read() as connection:
            await connection.execute(text("SELECT 1 FROM sessions LIMIT 1"))
    except (UnavailableError, TimeoutError) as error:
        log.warning("not ready: %s", error)
        return False
    return True


async def _temporal(deps: Dependencies) -> bool:
    try:
        async with temporal.reachable(TIMEOUT_S):
            await deps.temporal.service_client.check_health(timeout=timedelta(seconds=TIMEOUT_S))
    except (UnavailableError, RPCError) as error:
        log.warning("not ready: %s", error)
        return False
    return True


async def _redis(deps: Dependencies) -> bool:
    try:
        await deps.redis.exists("longhaul:ready")
    except FAULTS as error:
        log.warning("degraded: Redis cannot be reached: %s", error)
        return False
    return True


@metrics_router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
