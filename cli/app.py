"""All commands of `longhaul`, put together."""

import typer

from cli import doctor, logs, processes, promote, send, sessions, start_stop, status

app = typer.Typer(
    name="longhaul",
    help="A backend for chat copilots whose work must not be lost. `longhaul up` starts all of it on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("up")(start_stop.up)
app.command("down")(start_stop.down)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.command("doctor")(doctor.doctor)
app.command("send")(send.send)
app.command("worker")(processes.worker)
app.command("api")(processes.api)
app.command("promote")(promote.promote)
app.command("migrate")(processes.migrate)
app.command("setup-temporal")(processes.setup_temporal)
if sessions.app.registered_commands:
    app.add_typer(sessions.app, name="sessions")

__all__ = ["app"]
