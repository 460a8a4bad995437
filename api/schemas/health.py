"""The JSON of health checks."""

from typing import Literal

from api.schemas.base import Answer


class Health(Answer):
    """This process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Answer):
    """`degraded`: Redis is away, so streams come from rows; everything else works."""

    status: Literal["ready", "degraded", "unready"]
    database: bool
    temporal: bool
    redis: bool
