"""The tools of a deployment: ours, those of installed packages, and those that `LONGHAUL_TOOLS` names."""

import importlib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, NamedTuple

from longhaul.settings import Settings, SettingsError, named_object, not_allowed
from longhaul.tools import Registry, Tool, default_tools
from longhaul.tools.shell import shell_tools
from longhaul.tools.web import web_tools
from longhaul.tools.workflow_tools import WORKFLOW_TOOLS

#: The group of entry points by which a package brings tools.
GROUP = "longhaul.tools"
USABLE = "a tool, a list or `Registry` of tools, a function that returns one, or a module with tools"


class Offered(NamedTuple):
    """A tool and where it comes from, in words."""

    tool: Tool
    source: str


def load_tools(settings: Settings) -> Registry:
    """All tools that are not turned off. A tool of `LONGHAUL_TOOLS` replaces one of ours that has its name.

    Raises:
        SettingsError: a name of the settings leads to nothing usable, two tools share a name, or one requires another
            that there is not; the text is one line that says why.
    """
    offered = offered_tools(settings)
    # What a server offers is not known before it answers.
    of_servers = {name for name in settings.disabled_tools if settings.mcp_config and "__" in name}
    if unknown := [name for name in settings.disabled_tools if name not in offered and name not in of_servers]:
        raise not_allowed("disabled_tools", ",".join(unknown), f"the tools are {', '.join(sorted(offered))}")
    kept = {name: one for name, one in offered.items() if name not in settings.disabled_tools}
    for one in kept.values():
        if missing := [name for name in one.tool.requires if name not in kept]:
            raise SettingsError(
                f"tool {one.tool.name!r} of {one.source} requires {missing[0]!r}, which is no tool here"
            )
    return Registry(one.tool for one in kept.values())


def offered_tools(settings: Settings) -> dict[str, Offered]:
    """All tools by name, those that are turned off too.

    Raises:
        SettingsError: as `load_tools`.
    """
    ours = (*default_tools(), *shell_tools(settings), *web_tools(settings))
    offered: dict[str, Offered] = {tool.name: Offered(tool, "Longhaul") for tool in ours}
    for entry in entry_points(group=GROUP):
        _add(offered, [Offered(tool, _package(entry)) for tool in _of_package(entry)], may_replace=False)
    named = [Offered(tool, path) for path in map(str.strip, settings.tools.split(",")) if path for tool in _named(path)]
    _add(offered, named, may_replace=True)
    return offered


def _add(offered: dict[str, Offered], more: Iterable[Offered], *, may_replace: bool) -> None:
    added: dict[str, Offered] = {}
    for one in more:
        name = one.tool.name
        known = added.get(name) or offered.get(name)
        if known is not None and known.tool is one.tool:
            continue
        if name in WORKFLOW_TOOLS:
            raise SettingsError(f"tool {name!r} of {one.source}: the name is taken by a tool that workflows perform")
        if known is not None and (name in added or not may_replace):
            raise SettingsError(f"tool {name!r} of {one.source} has the name of a tool of {known.source}; rename one")
        added[name] = one
    offered.update(added)


def _named(path: str) -> list[Tool]:
    """The tools behind `module` or `module:name`."""
    try:
        found = named_object("tools", path) if ":" in path else importlib.import_module(path)
        return _tools_in(found)
    except SettingsError:
        raise
    except ImportError as error:
        raise not_allowed("tools", path, f"it cannot be imported: {error}") from error
    except Exception as error:
        # A module of the operator: whatever it raises, the line says so, and the process does not start.
        raise not_allowed("tools", path, f"{type(error).__name__}: {error}") from error


def _package(entry: EntryPoint) -> str:
    return f"package {entry.dist.name}" if entry.dist is not None else f"entry point {entry.name}"


def _of_package(entry: EntryPoint) -> list[Tool]:
    try:
        return _tools_in(entry.load())
    except Exception as error:
        # A module of somebody else: whatever it raises, the line says so, and the process does not start.
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError(
            f"{_package(entry)}: its entry point {entry.name} = {entry.value!r} in {GROUP!r} cannot be used: {reason}"
        ) from error


def _tools_in(found: Any) -> list[Tool]:
    """The tools that an object is, holds or returns.

    Raises:
        TypeError: it is, holds and returns none.
    """
    if isinstance(found, ModuleType):
        found = [value for value in vars(found).values() if isinstance(value, Tool)]
        if not found:
            raise TypeError("the module has no tools; put @tool above a function")
    elif callable(found):
        found = found()
    tools = [found] if isinstance(found, Tool) else list(found) if isinstance(found, Iterable) else [found]
    if not all(isinstance(tool, Tool) for tool in tools):
        raise TypeError(f"it must be {USABLE}")
    return tools
