"""Settings of a worker process, and of the metrics and logs of every process."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class Worker(BaseModel):
    """Worker, metrics and logs"""

    task_queue: str = Field("longhaul", min_length=1, description="Temporal task queue.")
    max_concurrent_activities: Annotated[int, Field(ge=1)] = Field(
        200, description="Model calls and tools one worker runs at once."
    )
    max_concurrent_stores: Annotated[int, Field(ge=1)] = Field(
        50, description="Stores one worker runs at once, beside model calls and tools."
    )
    shutdown_grace: Annotated[float, Field(ge=0)] = Field(
        10.0, description="Seconds running calls get after SIGTERM, then they are handed over."
    )
    build_id: str = Field("", description="Build id of this worker; it turns Worker Deployment Versioning on.")
    deployment_name: str = Field("longhaul", description="Worker deployment that the build belongs to.")
    worker_metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Prometheus port of the worker. 0: off."
    )
    api_metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Prometheus port of the API. 0: `/metrics` on the API's own port."
    )
    metrics_host: str = Field("127.0.0.1", description="Address that the Prometheus ports listen on.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Log level of every process.")
