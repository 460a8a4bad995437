"""The MCP servers of a deployment, from the file that `LONGHAUL_MCP_CONFIG` names.

It has the form that MCP clients share, `{"mcpServers": {"name": {"command": …} or {"url": …}}}`, and options of ours.
`${NAME}` in it stands for a variable of the environment, so a secret need not be in the file.
"""

import os
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from longhaul.settings import Settings, SettingsError, not_allowed, variable_of

#: No `__`: it divides a server's name from that of its tool.
NAME = re.compile(r"[a-zA-Z0-9]+(?:[-_][a-zA-Z0-9]+)*")
NAME_MAX_CHARS = 24
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
#: Variables that are Longhaul's own. No server is told what they hold.
OURS = re.compile(r"LONGHAUL_\w+|OPENAI_\w+|DATABASE_URL|REDIS_URL|TEMPORAL_\w+|PG\w+")
#: What a program needs to run. A server that is started has these and those that its entry names.
OF_ANY_PROGRAM = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER")


class OAuth(BaseModel):
    """Client credentials (OAuth 2.0): a token for this deployment, whoever its users are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: str = Field(min_length=1)
    client_secret: SecretStr
    #: The authorization server that has given them out. No other one is sent the secret.
    issuer: str = Field(pattern=r"https?://.+")
    scope: str | None = None


class ServerConfig(BaseModel):
    """One server: a program that is started (`command`), or an address (`url`).

    Attributes:
        env: variables of the program beside `OF_ANY_PROGRAM`.
        tools: patterns of the tools to offer, by the server's own names; None: all.
        timeout: seconds of one call; None: as `LONGHAUL_TOOL_TIMEOUT` says.
        start_timeout: seconds that the server may take to answer the first requests.
        needs_approval: whether a person has to allow each call of its tools.
        trust_annotations: whether its word counts for which tools change nothing and which may run again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["stdio", "http", "streamable-http"] | None = None
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str = ""
    headers: dict[str, SecretStr] = {}
    oauth: OAuth | None = None
    tools: tuple[str, ...] | None = None
    timeout: Annotated[float, Field(gt=0)] | None = None
    start_timeout: Annotated[float, Field(gt=0)] = 30.0
    needs_approval: bool = False
    trust_annotations: bool = True

    @model_validator(mode="after")
    def _one_of_both(self) -> "ServerConfig":
        if bool(self.command) == bool(self.url):
            raise ValueError("a server has either a `command` or a `url`")
        if self.url:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("`url` begins with http:// or https://")
            if self.args or self.env or self.cwd:
                raise ValueError("`args`, `env` and `cwd` belong to a `command`")
        elif self.headers or self.oauth:
            raise ValueError("`headers` and `oauth` belong to a `url`")
        return self

    def offers(self, tool_name: str) -> bool:
        """Whether the deployment wants this tool of the server."""
        return self.tools is None or any(fnmatchcase(tool_name, pattern) for pattern in self.tools)

    def environment(self) -> dict[str, str]:
        """All variables of the server's program."""
        needed = {name: os.environ[name] for name in OF_ANY_PROGRAM if name in os.environ}
        return {**needed, **self.env}


def load_servers(settings: Settings) -> dict[str, ServerConfig]:
    """The servers by name, in the order of the file; none without a file.

    Raises:
        SettingsError: the file cannot be used; the text is one line that says why.
    """
    if not settings.mcp_config:
        return {}
    path = Path(settings.mcp_config)
    try:
        decoded = orjson.loads(path.read_bytes())
    except OSError as error:
        raise not_allowed("mcp_config", settings.mcp_config, f"it cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise not_allowed("mcp_config", settings.mcp_config, f"it is not JSON: {error}") from error
    entries = decoded.get("mcpServers") if isinstance(decoded, dict) else None
    if not isinstance(entries, dict):
        raise not_allowed("mcp_config", settings.mcp_config, 'it has no object "mcpServers"')
    return {name: _server(settings, name, entry) for name, entry in entries.items()}


def _server(settings: Settings, name: str, entry: Any) -> ServerConfig:
    where = f"{variable_of('mcp_config')}={settings.mcp_config!r}: server {name!r}"
    if not NAME.fullmatch(name) or len(name) > NAME_MAX_CHARS:
        raise SettingsError(
            f"{where}: a name has up to {NAME_MAX_CHARS} letters and digits, and single - or _ between them"
        )
    try:
        return ServerConfig.model_validate(_filled_in(entry, os.environ, where))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{where}: {f'{place}: ' if place else ''}{reason}") from None


def _filled_in(value: Any, variables: Mapping[str, str], where: str) -> Any:
    """`value` with the variables that its texts name.

    Raises:
        SettingsError: there is no such variable, or it is one of Longhaul's own.
    """
    if isinstance(value, dict):
        return {name: _filled_in(member, variables, where) for name, member in value.items()}
    if isinstance(value, list):
        return [_filled_in(member, variables, where) for member in value]
    if not isinstance(value, str):
        return value

    def content(found: re.Match[str]) -> str:
        name, default = found.groups()
        if OURS.fullmatch(name):
            raise SettingsError(f"{where} is not told {name}, which belongs to Longhaul; give it a variable of its own")
        if (text := variables.get(name, default)) is None:
            raise SettingsError(f"{where} names the variable {name}, which is not set")
        return text

    return VARIABLE.sub(content, value)
