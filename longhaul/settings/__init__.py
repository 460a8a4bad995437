"""Every setting of Longhaul, read once from the environment, `.env` and secret files; a file is a topic.

Names are `LONGHAUL_<FIELD>`, except where the field has a standard name that other programs use too
(`DATABASE_URL`, `REDIS_URL`, `OPENAI_*`, `TEMPORAL_*`). `docs/settings.md` is generated from these files.
For every limit, 0 turns it off.
"""

import importlib
import os
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from longhaul.settings.api import Api
from longhaul.settings.costs import Costs
from longhaul.settings.credentials import Credentials
from longhaul.settings.models import Models
from longhaul.settings.places import Places
from longhaul.settings.tools import Tools
from longhaul.settings.turns import Streams, SubSessions, Turns
from longhaul.settings.values import without_secrets
from longhaul.settings.webhooks import Webhooks
from longhaul.settings.worker import Worker

LIMITS_OF_USERS = frozenset(
    {
        *("max_running_turns", "new_turn_rate_limit", "max_streams", "max_long_polls"),
        *("daily_cost_limit", "weekly_cost_limit"),
    }
)
TOPICS = (Places, Api, Costs, Models, Turns, SubSessions, Streams, Tools, Credentials, Webhooks, Worker)


class Settings(
    Places, Api, Costs, Models, Turns, SubSessions, Streams, Tools, Credentials, Webhooks, Worker, BaseSettings
):
    """One process's settings; build it with `load_settings()`, which turns a wrong value into one readable line."""

    model_config = SettingsConfigDict(env_prefix="LONGHAUL_", env_file=".env", extra="ignore", populate_by_name=True)

    @model_validator(mode="after")
    def _limits_need_users(self) -> "Settings":
        """Without authentication everybody is the same user, so limits per user apply only if they are asked for."""
        if self.auth == "off":
            for name in LIMITS_OF_USERS - self.model_fields_set:
                self.__dict__[name] = 0
        return self


def variable_of(field: str) -> str:
    """The environment variable that sets a field."""
    alias = Settings.model_fields[field].alias if field in Settings.model_fields else None
    return alias or f"LONGHAUL_{field.upper()}"


class SettingsError(ValueError):
    """A setting has a value that is not allowed; the text names the variable, the value and what is allowed."""


def not_allowed(field: str, value: object, reason: str) -> SettingsError:
    """The error about a field's value, in one line."""
    return SettingsError(f"{variable_of(field)}={value!r} is not allowed: {reason}")


def named_object(field: str, path: str) -> Any:
    """What a setting of the form `module:name` names.

    Raises:
        SettingsError: nothing is there.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise not_allowed(field, path, "write it as `module:name`")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise not_allowed(field, path, f"{module_name} cannot be imported: {error}") from error
    found = getattr(module, name, None)
    if found is None:
        raise not_allowed(field, path, f"{module_name} has no {name!r}")
    return found


def explain(error: ValidationError) -> str:
    """The first defect of a settings error as one line for a person, without secrets."""
    first = error.errors()[0]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    place = str(first["loc"][0])
    names = {variable_of(name): name for name in Settings.model_fields}
    variable, name = (place, names[place]) if place in names else (variable_of(place), place)
    value = first["input"]
    if Settings.model_fields[name].annotation is SecretStr:
        value = "***"
    elif isinstance(value, str):
        value = without_secrets(value)
    return f"{variable}={value!r} is not allowed: {first['msg'].removeprefix('Value error, ')}"


def load_settings(**overrides: object) -> Settings:
    """Read the settings: the environment first, then `.env`, then files that are named like the variables.

    Raises:
        SettingsError: one line naming variable, value and what is allowed.
    """
    folder = Path(os.environ.get("LONGHAUL_SECRETS_DIR", "/run/secrets"))
    try:
        # Overrides are validated by pydantic.
        return Settings(_secrets_dir=folder if folder.is_dir() else None, **overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(explain(error)) from error
