"""All commands of `longhaul`, and those that only start or call one thing."""

import asyncio
import os
from collections.abc import Mapping
from typing import Annotated, Literal

import typer

from cli import (
    CommandError,
    chat,
    credentials,
    doctor,
    logs,
    send,
    sessions,
    setup_temporal,
    status,
    tools,
    up_down,
    watch,
)
from cli.stack.environment import joined_environment, tool_worker_environment
from cli.stack.programs import python_module
from longhaul.settings import Settings, load_settings

app = typer.Typer(
    name="longhaul",
    help="A backend for chat copilots whose work must not be lost. `longhaul up` starts all of it on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("up")(up_down.up)
app.command("down")(up_down.down)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.command("doctor")(doctor.doctor)
app.command("send")(send.send)
app.command("chat")(chat.chat)
app.command("watch")(watch.watch)


@app.command("worker")
def worker(
    role: Annotated[
        Literal["all", "tools"], typer.Option(help="`tools`: only run tools, without database, Redis and keys.")
    ] = "all",
    queue: Annotated[str, typer.Option(help="With `--role tools`: whose tools, by their `task_queue`.")] = "tools",
) -> None:
    """Run a worker in the foreground; beside a running stack, it joins that stack."""
    environment = joined_environment(load_settings())
    if role == "tools":
        environment = tool_worker_environment(environment)
    _become(python_module("worker", "--role", role, "--queue", queue), environment)


@app.command("api")
def api() -> None:
    """Run the API in the foreground on LONGHAUL_API_HOST and LONGHAUL_API_PORT."""
    _become(python_module("api"), joined_environment(load_settings()))


def _become(argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
    os.execve(argv[0], argv, environment)  # noqa: S606  # our own interpreter and module


@app.command("promote")
def promote(
    build_id: Annotated[
        str, typer.Argument(metavar="BUILD", help="LONGHAUL_BUILD_ID of the workers; must be polling.")
    ],
) -> None:
    """Start new turns on the workers of a build from now on. Running turns end on the build that they began on."""
    from longhaul.errors import UnavailableError

    os.environ.update(joined_environment(load_settings()))
    try:
        asyncio.run(set_current_build(load_settings(), build_id))
    except UnavailableError as error:
        raise CommandError(str(error)) from error
    typer.echo(f"new turns start on build {build_id}")


async def set_current_build(settings: Settings, build_id: str) -> None:
    """Set the current version of our worker deployment.

    Raises:
        CommandError: no worker of that build has been seen.
        UnavailableError: Temporal cannot be reached.
    """
    from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
    from temporalio.service import RPCError, RPCStatusCode

    from longhaul import temporal

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
                raise CommandError(
                    f"no worker of build {build_id} polls for deployment {settings.deployment_name}: {error.message}"
                ) from error
            raise


@app.command("migrate")
def migrate() -> None:
    """Bring the database (DATABASE_URL, else SQLite in the home) to the newest schema."""
    from sqlalchemy.exc import SQLAlchemyError

    from longhaul.db.migrate import upgrade  # Alembic is slow to import

    settings = load_settings()
    if not settings.database_url:
        settings.home.absolute().mkdir(parents=True, exist_ok=True)
    try:
        upgrade(settings.sqlalchemy_url)
    except (OSError, SQLAlchemyError) as error:
        raise CommandError(f"the database cannot be migrated: {error}") from error
    typer.echo("the database has the newest schema")


app.command("setup-temporal")(setup_temporal.setup_temporal)
app.add_typer(sessions.app, name="sessions")
app.add_typer(tools.app, name="tools")
app.add_typer(credentials.app, name="credentials")
