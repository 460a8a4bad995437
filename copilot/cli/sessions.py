"""`longhaul sessions …`: commands on stored sessions. A command put on `app` shows up by itself."""

import typer

app = typer.Typer(help="Look after stored sessions.", no_args_is_help=True)

__all__ = ["app"]
