"""`longhaul tools …`: which tools there are, a new one of your own, and trying one without a model."""

import asyncio
import keyword
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer
from rich.console import Console
from rich.table import Table

from cli import CommandError
from longhaul.settings import Settings, load_settings

# Tools are imported by the commands that need them: the other commands start faster without.
if TYPE_CHECKING:
    from longhaul.contracts import Scope, ToolProgress
    from longhaul.mcp.servers import McpServers
    from longhaul.tools import Registry, Tool

app = typer.Typer(help="List tools, begin one, try one without a model.", no_args_is_help=True)

TEMPLATE = '''"""Tools of your own. `LONGHAUL_TOOLS={name}` adds them to Longhaul's."""

from longhaul.tools import ToolContext, ToolError, tool


@tool(timeout=30)
async def {name}(subject: str, context: ToolContext, times: int = 1) -> str:
    """Say in one or two sentences what the tool does, for the model.

    Args:
        subject: What this argument means, for the model.
        times: Between 1 and 10.
    """
    if not 1 <= times <= 10:
        raise ToolError("`times` must be between 1 and 10.")
    lines = []
    for number in range(1, times + 1):
        context.progress(f"line {{number}}", done=number, total=times)
        lines.append(f"{{number}}. {{subject}}")
    return "\\n".join(lines)
'''


@app.callback()
def _group() -> None:
    """List tools, begin one, try one without a model."""
    # As `python -m` does for the worker: modules that LONGHAUL_TOOLS names may be in the current folder.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


@app.command("list")
def list_tools() -> None:
    """Show all tools: what they do, where they come from, and whether they are turned off."""
    from longhaul.tools.load import load_tools, offered_tools

    settings = load_settings()
    offered = offered_tools(settings)
    own = load_tools(settings)  # names what is wrong with the settings
    table = Table("tool", "from", "what it does", box=None, pad_edge=False)
    for one in offered.values():
        table.add_row(*_row(one.tool, one.source, off=one.tool.name in settings.disabled_tools))
    tools, troubles = asyncio.run(_of_servers(settings, own))
    for tool in tools:
        table.add_row(*_row(tool, f"MCP server {tool.name.split('__')[0]}", off=False))
    Console(highlight=False, markup=False).print(table)
    for trouble in troubles:
        typer.echo(trouble, err=True)


async def _of_servers(settings: Settings, own: "Registry") -> tuple[list["Tool"], list[str]]:
    """The tools of MCP servers, and what is wrong with those servers."""
    async with _with_servers(settings, own) as servers:
        return (list(servers.tools.values()), list(servers.troubles)) if servers is not None else ([], [])


@asynccontextmanager
async def _with_servers(settings: Settings, own: "Registry") -> "AsyncIterator[McpServers | None]":
    """The MCP servers of the settings, connected until the block ends; None without any."""
    if not settings.mcp_config:
        yield None
        return
    from longhaul.mcp.config import load_servers
    from longhaul.mcp.servers import McpServers

    logging.getLogger("longhaul.mcp").setLevel(logging.ERROR)  # `list` shows what is wrong
    async with McpServers(load_servers(settings), own, settings).running() as servers:
        yield servers


def _row(tool: "Tool", source: str, *, off: bool) -> tuple[str, str, str]:
    words = _words(tool, off=off)
    summary = " ".join(tool.description.split("\n", 1)[0].split())
    return tool.name, source, f"{summary} ({words})" if words else summary


def _words(tool: "Tool", *, off: bool) -> str:
    said = [(off, "turned off"), (tool.changes, "changes something"), (not tool.repeatable, "runs at most once")]
    return ", ".join(word for holds, word in said if holds)


@app.command()
def new(name: Annotated[str, typer.Argument(help="Name of the tool and its module, e.g. `weather`.")]) -> None:
    """Write NAME.py into the current folder: a complete tool to change."""
    file = Path(f"{name}.py")
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        raise CommandError(f"{name!r} cannot name a module; use letters, digits and _, for example `weather`")
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(TEMPLATE.format(name=name))
    except FileExistsError as error:
        raise CommandError(f"{file} exists; choose another name") from error
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}") from error
    typer.echo(f"{file} is written. Try it, then give it to the copilot:")
    typer.echo(f"""  LONGHAUL_TOOLS={name} longhaul tools run {name} --args '{{"subject": "a test"}}'""")
    typer.echo(f"  LONGHAUL_TOOLS={name} longhaul up")


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="The tool.")],
    args: Annotated[str, typer.Option("--args", metavar="JSON", help="Its arguments, as a model writes them.")] = "{}",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="As in a session that must change nothing.")] = False,
    workspace: Annotated[
        Path | None, typer.Option(help="Folder of the session's files. Default: the current one.")
    ] = None,
) -> None:
    """Run a tool once, without a model, a worker or a session. Progress goes to stderr, the output to stdout."""
    from longhaul.contracts import Scope
    from longhaul.tools import ToolError

    settings = load_settings()
    try:
        output = asyncio.run(_run(settings, name, args, Scope(dry_run=dry_run), (workspace or Path()).absolute()))
    except ToolError as error:
        raise CommandError(str(error)) from error
    except TimeoutError as error:
        raise CommandError(f"{name} took longer than its timeout") from error
    typer.echo(output)


async def _run(settings: Settings, name: str, arguments: str, scope: "Scope", workspace: Path) -> str:
    """The tool's output.

    Raises:
        ToolError: there is no such tool, the arguments do not fit, or the tool refuses.
        TimeoutError: it took too long.
    """
    from longhaul.tools import ToolContext, ToolError
    from longhaul.tools.load import load_tools

    registry = load_tools(settings)
    async with _with_servers(settings, registry) as servers:
        tool = (registry.with_source(servers) if servers is not None else registry).get(name, scope)
        parsed = tool.parse(arguments)
        if tool.run is None:
            raise ToolError(f"{name} is performed by a turn's workflow and cannot be run alone.")
        if scope.dry_run and tool.changes:
            return tool.told(parsed)
        context = ToolContext(
            user_id="local",
            session_id=str(uuid4()),
            turn_id=str(uuid4()),
            tool_call_id="try",
            folder=workspace,
            scope=scope,
            workspace_max_bytes=settings.workspace_max_bytes,
            report=_show,
        )
        try:
            async with asyncio.timeout(tool.timeout or settings.tool_timeout):
                return await tool.run(parsed, context)
        finally:
            context.ended.set()


def _show(progress: "ToolProgress") -> None:
    share = "" if progress.done is None else f"{progress.done:g}"
    if progress.total is not None:
        share += f" of {progress.total:g}"
    typer.echo(" ".join(filter(None, (share, progress.text))), err=True)
