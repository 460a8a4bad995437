"""Settings of the tools: which ones there are, what each may do, and which calls a person has to allow."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field, IPvAnyNetwork, SecretStr, field_validator
from pydantic_settings import NoDecode

from longhaul.settings.api import JWT_SECRET_MIN_BYTES
from longhaul.settings.values import SPLIT_AT_COMMAS, Count, Seconds, Words

#: An entry of `LONGHAUL_APPROVE`; and the commas between entries, not those in the parentheses of a pattern.
APPROVE_ENTRY = re.compile(
    r"(?P<tool>[\w.*?-]+)(?:\((?:(?P<name>\w+)=)?(?P<pattern>.+)\))?(?: if (?P<conditions>[^()]+))?", re.DOTALL
)
APPROVE_CONDITION = re.compile(r"price >= (?P<price>\d{1,15})|user (?P<compared>!?=) (?P<user>\S+)")
BETWEEN_APPROVE_ENTRIES = re.compile(r",(?![^(]*\))")


class Tools(BaseModel):
    """Tools"""

    tools: str = Field(
        "",
        description="Your own tools beside ours, comma-separated: `module`, or `module:name` of a tool, a list or "
        "`Registry` of tools, or a function that returns one.",
    )
    mcp_config: str = Field(
        "",
        description="JSON file with MCP servers, in the form that MCP clients share ([mcp.md](mcp.md)). Empty: none.",
    )
    mcp_max_bytes: Annotated[int, Field(ge=10_000)] = Field(
        8_000_000, description="Bytes of one message of an MCP server. A larger one ends the call with an error."
    )
    web_fetch: bool = Field(
        default=False, description="Offer the tool `web_fetch`, which reads pages at public addresses."
    )
    web_fetch_max_bytes: Annotated[int, Field(ge=1)] = Field(
        10_000_000, description="Bytes that a page may have, unpacked as well."
    )
    web_allowed_networks: Annotated[list[IPvAnyNetwork], NoDecode, SPLIT_AT_COMMAS] = Field(
        [], description="Networks that `web_fetch` may reach although they are not public, e.g. `10.1.0.0/16`."
    )
    web_search: Literal["off", "searxng", "brave", "tavily"] = Field(
        "off", description="Search engine of the tool `web_search`."
    )
    web_search_url: str = Field("", description="Address of a SearXNG; of the others, in place of their own.")
    web_search_key: SecretStr = Field(SecretStr(""), description="Key for Brave or Tavily.")
    tool_token_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs the tokens by which tool workers reach the API, at least 32 bytes, the same for all APIs. "
        "Empty: each API makes one of its own.",
    )
    tool_output_max_bytes: Annotated[int, Field(ge=1)] = Field(
        10_000_000, description="Bytes of a result that a tool worker gives to the API; more: 413, and the call fails."
    )
    tool_worker_rate_limit: Count = Field(
        600, description="Requests of tool workers per tool call and 60 s; more: 429."
    )
    disabled_tools: Words = Field([], description="Names of tools that no session may use, comma-separated.")
    approve: Words = Field(
        [],
        description="Tool calls that a person has to allow, comma-separated: `write_file`, `shop__*`, "
        "`bash_exec(rm *)`, `write_file(path=reports/*)`, `* if price >= 5000`, `write_file if user != ops-*`.",
    )
    shell: Literal["off", "on"] = Field(
        "off",
        description="Tools that run commands and Python in a sandbox (`bash_exec`, `python_exec`). Needs bubblewrap.",
    )
    shell_network: bool = Field(
        default=False, description="Whether commands have the network of their worker, private addresses included."
    )
    shell_memory_bytes: Count = Field(2_147_483_648, description="Bytes of memory of one command. 0: no limit.")
    shell_processes: Count = Field(128, description="Processes and threads of one command. 0: no limit.")
    shell_job_seconds: Seconds = Field(7_200.0, description="Seconds that a command in the background may run.")
    shell_bubblewrap: str = Field("bwrap", min_length=1, description="The program that makes sandboxes.")

    @field_validator("tool_token_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value().encode()) < JWT_SECRET_MIN_BYTES:
            raise ValueError(f"at least {JWT_SECRET_MIN_BYTES} bytes")
        return value

    @field_validator("approve", mode="before")
    @classmethod
    def _split_entries(cls, value: object) -> object:
        if isinstance(value, str):
            value = [entry.strip() for entry in BETWEEN_APPROVE_ENTRIES.split(value) if entry.strip()]
        return value

    @field_validator("approve")
    @classmethod
    def _known_form(cls, entries: list[str]) -> list[str]:
        for entry in entries:
            if (found := APPROVE_ENTRY.fullmatch(entry)) is None:
                raise ValueError(f"write tool, tool(pattern) or tool(argument=pattern) instead of {entry!r}")
            for condition in found["conditions"].split(" and ") if found["conditions"] else ():
                if not APPROVE_CONDITION.fullmatch(condition.strip()):
                    raise ValueError(f"write price >= 5000, user = ops-* or user != ops-* instead of {condition!r}")
        return entries
