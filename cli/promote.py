"""`longhaul promote BUILD`: new turns start on this build from now on; turns that run stay on theirs."""

import asyncio
import os
from typing import Annotated

import typer
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.service import RPCError, RPCStatusCode

from cli.processes import joined_environment
from cli.stack.errors import StackError
from longhaul import temporal
from longhaul.errors import UnavailableError
from longhaul.settings import Settings, load_settings


def promote(
    build_id: Annotated[
        str, typer.Argument(metavar="BUILD", help="LONGHAUL_BUILD_ID of the workers; must be polling.")
    ],
) -> None:
    """Make new turns start on the workers of a build; turns that run end on the build they began on."""
    os.environ.update(joined_environment(load_settings()))
    try:
        asyncio.run(set_current(load_settings(), build_id))
    except UnavailableError as error:
        raise StackError(str(error)) from error
    typer.echo(f"new turns start on build {build_id}")


async def set_current(settings: Settings, build_id: str) -> None:
    """Set the current version of our worker deployment.

    Raises:
        StackError: no worker of that build has been seen.
        UnavailableError: Temporal cannot be reached.
    """
    async with temporal.reachable(settings.temporal_rpc_timeout):
        client = await temporal.connect(settings)
        request = SetWorkerDeploymentCurrentVersionRequest(
            namespace=client.namespace,
            deployment_name=settings.deployment_name,
            build_id=build_id,
            identity=client.identity,
            ignore_missing_task_queues=True,
        )
        try:
            await client.workflow_service.set_worker_deployment_current_version(request)
        except RPCError as error:
            if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION):
                raise StackError(
                    f"no worker of build {build_id} polls for deployment {settings.deployment_name}: {error.message}"
                ) from error
            raise


__all__ = ["promote", "set_current"]
