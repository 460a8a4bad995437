"""Tools of your own: `LONGHAUL_TOOLS=module:name` names a `Registry`, or a function that returns one."""

import importlib

from longhaul.settings import SettingsError, variable_of
from longhaul.tools.registry import Registry


def load_tools(path: str) -> Registry:
    """The registry behind `module:name`.

    Raises:
        SettingsError: there is none; one line says what is wrong.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise _wrong(path, "write it as `module:name`")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise _wrong(path, f"{module_name} cannot be imported: {error}") from error
    found = getattr(module, name, None)
    if found is None:
        raise _wrong(path, f"{module_name} has no {name!r}")
    registry = found if isinstance(found, Registry) else found() if callable(found) else None
    if not isinstance(registry, Registry):
        raise _wrong(path, "it must be a `longhaul.tools.Registry`, or a function that returns one")
    return registry


def _wrong(path: str, reason: str) -> SettingsError:
    return SettingsError(f"{variable_of('tools')}={path!r} is not allowed: {reason}")


__all__ = ["load_tools"]
