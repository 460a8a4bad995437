"""Every setting of Longhaul, read once from the environment, `.env` and secret files.

Names are `LONGHAUL_<FIELD>`, except where the field has a standard name that other programs use too
(`DATABASE_URL`, `REDIS_URL`, `OPENAI_*`, `TEMPORAL_*`). `docs/settings.md` is generated from this file.
For every limit, 0 turns it off.
"""

import importlib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import orjson
from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from longhaul.llm.models import Effort, ModelInfo

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
# RFC 7518: a key for HS256 is at least as long as its hash.
JWT_SECRET_MIN_BYTES = 32
WINDOW_MIN = 1000
Tier = Literal["standard", "advanced"]
TIERS: tuple[Tier, ...] = ("standard", "advanced")
# The password reaches to the last `@`: a URL that cannot be parsed may have several.
_PASSWORD = re.compile(r"(//[^:@/?#]*):.*@", re.DOTALL)
_SECRET_PARAMETER = re.compile(r"(?i)((?:pass\w*|pwd|secret|token|key|credential|signature)=)[^&#]*")

#: An entry of `LONGHAUL_APPROVE`; and the commas between entries, not those in the parentheses of a pattern.
APPROVE_ENTRY = re.compile(r"(?P<tool>[\w.*?-]+)(?:\((?:(?P<name>\w+)=)?(?P<pattern>.+)\))?", re.DOTALL)
BETWEEN_APPROVE_ENTRIES = re.compile(r",(?![^(]*\))")

LIMITS_OF_USERS = frozenset(
    {
        *("max_running_turns", "new_turn_rate_limit", "max_streams", "max_long_polls"),
        *("daily_cost_limit", "weekly_cost_limit"),
    }
)
DEFAULT_TIER = "FREE"

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Models = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], NoDecode]


class ModelChoice(NamedTuple):
    """A model, and the tier that it belongs to; one that belongs to none counts as `standard`."""

    tier: Tier
    model: str


class Settings(BaseSettings):
    """One process's settings; build it with `load_settings()`, which turns a wrong value into one readable line."""

    model_config = SettingsConfigDict(env_prefix="LONGHAUL_", env_file=".env", extra="ignore", populate_by_name=True)

    # Where things are
    home: Path = Field(Path(".longhaul"), description="Folder of everything that the embedded stack keeps.")
    workspaces: str = Field(
        "",
        description="Folder of the sessions' files, shared by all workers and APIs. Empty: `workspaces` in the home.",
    )
    workspace_max_bytes: Count = Field(
        1_073_741_824, description="Bytes that the files of a session and all its sub-sessions may take. 0: no limit."
    )
    files_url: str = Field(
        "",
        description="Bucket of uploaded files, e.g. `s3://bucket/folder`, with the `AWS_*` variables of its provider. "
        "Empty: the folder `.files` among the workspaces.",
    )
    file_max_bytes: Annotated[int, Field(ge=1)] = Field(
        25_000_000, description="Bytes of one uploaded file; it is held in memory while it passes. More: 413."
    )
    user_files_max_bytes: Count = Field(
        1_073_741_824, description="Bytes that all files of a user may take; more: 413. 0: no limit."
    )
    database_url: str = Field(
        "", alias="DATABASE_URL", description="SQLite or PostgreSQL 15+. Empty: SQLite in the home folder."
    )
    redis_url: str = Field("", alias="REDIS_URL", description="Redis 6.2+. Empty: the embedded stack starts one.")
    temporal_address: str = Field(
        "", alias="TEMPORAL_ADDRESS", description="Temporal frontend. Empty: the embedded stack starts a dev server."
    )
    temporal_namespace: str = Field("default", alias="TEMPORAL_NAMESPACE", description="Temporal namespace.")
    payload_codec: str = Field(
        "",
        description="Encodes what Longhaul keeps in Temporal, as `module:name`: a `PayloadCodec`, or what makes one.",
    )
    temporal_ui_url: str = Field("", description="Where people open Temporal's Web UI; only shown, never called.")
    openai_base_url: str = Field(
        "", alias="OPENAI_BASE_URL", description="OpenAI-compatible endpoint. Empty, with no key: the offline model."
    )
    openai_api_key: SecretStr = Field(SecretStr(""), alias="OPENAI_API_KEY", description="Key of that endpoint.")

    # API
    api_host: str = Field("127.0.0.1", description="Address the API listens on; with auth off, loopback only.")
    api_port: Annotated[int, Field(ge=1, le=65535)] = Field(
        8700, description="Port of the API; a taken one is stepped over."
    )
    public_url: str = Field(
        "", description="Address of the API for people, e.g. `https://chat.example.com`. Empty: its host and port."
    )
    auth: Literal["off", "jwt"] = Field("off", description="`off`: one user `local`. `jwt`: bearer tokens.")
    jwt_secret: SecretStr = Field(SecretStr(""), description="HS256 secret of the tokens, at least 32 bytes.")
    jwt_jwks_url: str = Field(
        "", description="JWKS URL of the tokens' issuer (RS256/ES256), instead of a secret. https, or http on loopback."
    )
    jwt_audience: str = Field("", description="Required audience of a token. Empty: not checked, with a secret only.")
    jwt_issuer: str = Field("", description="Required issuer of a token. Empty: not checked, with a secret only.")
    jwt_tier_claim: str = Field("tier", description="Claim that holds the user's tier; `a.b` reaches into an object.")
    jwt_email_claim: str = Field("email", description="Claim that holds the user's e-mail address, for admins.")
    jwt_roles_claim: str = Field("roles", description="Claim that holds the user's roles: a list, or words in a text.")
    admin_role: str = Field("admin", min_length=1, description="The role that may use `/v1/admin/...`.")
    cors_origins: Annotated[list[str], NoDecode] = Field(
        [], description="Origins allowed by CORS, comma-separated; `*` only with LONGHAUL_AUTH=jwt. Empty: CORS off."
    )
    max_streams: Count = Field(
        50, description="Open streams per user and API process; more: 429. Without auth 0, unless set."
    )
    max_long_polls: Count = Field(
        50, description="Polls that wait, per user and API process; more: 429. Without auth 0, unless set."
    )
    stream_keep_alive: Seconds = Field(15.0, description="Seconds between keep-alive comments on a silent stream.")
    temporal_rpc_timeout: Seconds = Field(5.0, description="Seconds the API waits for Temporal before it answers 503.")

    # Costs
    daily_cost_limit: Count = Field(
        1_000_000,
        description="Microdollars per user and day, to midnight UTC; then a new turn: 429. Without auth 0, unless set.",
    )
    weekly_cost_limit: Count = Field(
        5_000_000,
        description="Microdollars per user and week, to Monday 00:00 UTC; a new turn: 429. Without auth 0, unless set.",
    )
    reset_credits: Count = Field(0, description="Credits that a user's reset of the day costs. 0: none is sold.")
    max_resets: Count = Field(3, description="Resets that a user may buy a day; more: 429. 0: no limit.")
    tiers: Annotated[dict[str, Annotated[float, Field(gt=0)]], NoDecode] = Field(
        {DEFAULT_TIER: 1.0},
        description="What each tier of users multiplies these limits by, as `FREE=1,PRO=5`. Unknown tiers are `FREE`.",
    )

    # Models
    model_standard: str = Field("gpt-4.1", description="Model of tier `standard`.")
    model_advanced: str = Field("gpt-5", description="Model of tier `advanced`.")
    model_small: str = Field("gpt-4.1-mini", description="Model that titles new sessions. Empty: no titles.")
    model_standard_fallbacks: Models = Field(
        [], description="Models that are tried in this order when `LONGHAUL_MODEL_STANDARD` fails, comma-separated."
    )
    model_advanced_fallbacks: Models = Field([], description="The same for `LONGHAUL_MODEL_ADVANCED`.")
    model_fallback_after: Annotated[float, Field(ge=0)] = Field(
        30.0,
        description="Seconds a failing model call is retried before the next fallback model is tried. The last one is "
        "retried for `LONGHAUL_MODEL_RETRY_SECONDS`.",
    )
    image_models: Models = Field(
        ["gpt-4o*", "gpt-4.1*", "gpt-5*", "o1*", "o3*", "o4*", "claude-*", "gemini-*"],
        description="Models that are shown images, comma-separated, `*` for any text; of `provider/model` the last "
        "part counts. Others are told the names of the files.",
    )
    allowed_models: Models = Field(
        [],
        description="Models that a session or message may choose, beside those of the tiers, comma-separated.",
    )
    models: Annotated[dict[str, ModelInfo], NoDecode] = Field(
        {},
        description='What differs from what is known of models, as JSON: `{"my-model": {"window": 32000, '
        '"prices": {"input": 0.5, "output": 1.5}, "efforts": ["none", "high"]}}`. Prices are US dollars '
        "for a million tokens.",
    )
    model_retry_seconds: Annotated[float, Field(ge=0)] = Field(
        600.0, description="Seconds a failing model call is retried before the turn fails. 0: not at all."
    )
    model_backoff_base: Seconds = Field(0.5, description="Seconds before the first retry; with jitter.")
    model_backoff_factor: Annotated[float, Field(ge=1)] = Field(2.0, description="Growth of that wait.")
    model_backoff_max: Seconds = Field(30.0, description="Cap of that wait in seconds, and of an honoured Retry-After.")
    model_idle_timeout: Seconds = Field(
        120.0, description="Seconds without a chunk after which a stream counts as broken."
    )
    model_connect_timeout: Seconds = Field(10.0, description="Seconds to reach the endpoint.")
    model_max_seconds: Seconds = Field(7200.0, description="Seconds one model call may take, retries included.")
    model_usage_cost: bool | None = Field(
        None, description="Ask the endpoint for `usage.cost`. Unset: where it is known to answer."
    )
    budget_answer_tokens: Annotated[int, Field(ge=1)] = Field(
        16_384,
        description="Tokens that one answer may have in a session with a budget of money: its cost is reserved before.",
    )
    reasoning_effort: Effort = Field(
        "high", description="How much a model thinks in mode `extended_thinking`, unless a message says it."
    )
    reasoning_max_tokens: int = Field(
        8192,
        description="Reasoning tokens of effort `high` for Anthropic models; <= 0 turns all models' reasoning off.",
    )
    prompt_cache_ttl: Literal["5m", "1h"] = Field("1h", description="Prompt cache of Anthropic models.")
    system_prompt: str = Field("", description="Added behind the built-in system prompt, the same for all users.")
    context_window: Count = Field(
        0, description="Tokens of every model's window, at least 1000. 0: each model's own; 128,000 if it is unknown."
    )
    context_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7, description="Share of the window to fill; a request may take half of the rest too, the answer the other."
    )
    tool_result_max_chars: Count = Field(
        70_000, description="Characters of one tool result that the model is shown at once."
    )

    # Turns
    max_rounds: Annotated[int, Field(ge=1)] = Field(
        200, description="Model calls of one turn before it ends with a notice."
    )
    max_pending_messages: Count = Field(10, description="Follow-ups that may wait in a turn's inbox; more: 429.")
    follow_up_rate_limit: Count = Field(30, description="Follow-ups per user per 60 s over all sessions; more: 429.")
    max_running_turns: Count = Field(
        20, description="Turns per user at once, sub-sessions not counted; a new one: 429. Without auth 0, unless set."
    )
    new_turn_rate_limit: Count = Field(
        60, description="New turns per user per 60 s over all sessions; more: 429. Without auth 0, unless set."
    )
    continue_as_new_events: Count = Field(
        8_000, description="History events at which a turn continues as new. 0: when the server suggests it."
    )
    heartbeat_timeout: Seconds = Field(
        15.0, description="Seconds after which a silent worker's activity goes to another."
    )
    heartbeat_interval: Seconds = Field(
        5.0, description="Seconds between heartbeats; also how fast Stop reaches a running call while Redis is away."
    )
    tool_timeout: Seconds = Field(300.0, description="Seconds one tool call may take.")
    tool_tries: Annotated[int, Field(ge=1)] = Field(
        3, description="Starts of one tool call whose worker dies under it."
    )
    storage_window: Seconds = Field(3600.0, description="Seconds a turn waits for an unreachable database.")
    redeliver_after: Annotated[float, Field(ge=0)] = Field(
        60.0, description="Seconds a message may wait while no turn runs until it is delivered again. 0: never."
    )
    answer_timeout: Annotated[float, Field(ge=0)] = Field(
        86_400.0,
        description="Seconds that a call waits for a person or a client; then the model is told that nobody answered. "
        "0: for ever.",
    )
    wait_max_seconds: Annotated[float, Field(gt=0, le=300)] = Field(
        300.0, description="Longest the `wait` tool sleeps at a time."
    )

    # Sub-sessions
    max_tool_wait: Seconds = Field(300.0, description="Longest a tool call waits for a sub-session.")
    max_depth: Count = Field(3, description="Levels of sub-sessions below a session.")
    max_children: Count = Field(8, description="Running sub-sessions of one session.")
    max_running_sub_sessions: Count = Field(
        32, description="Running sub-sessions below one root session, detached ones included."
    )

    # Streams
    stream_flush_ms: Count = Field(
        15,
        description="Milliseconds over which deltas are gathered into one stream event; a busy worker takes up to "
        "four times as long.",
    )
    stream_ttl: Seconds = Field(3600.0, description="Seconds a turn's stream stays in Redis after its last event.")
    stream_max_bytes: Count = Field(
        33_554_432,
        description="Bytes a turn's stream may take in Redis; beyond it, readers get stored rows. 0: no limit.",
    )
    session_copy_ttl: Count = Field(
        43_200, description="Seconds a session's copy stays in Redis, for when the database is away. 0: no copies."
    )
    redis_timeout: Seconds = Field(1.0, description="Seconds after which Redis counts as unreachable.")

    # Worker
    task_queue: str = Field("longhaul", min_length=1, description="Temporal task queue.")
    tools: str = Field(
        "",
        description="Your own tools beside ours, comma-separated: `module`, or `module:name` of a tool, a list or "
        "`Registry` of tools, or a function that returns one.",
    )
    web_fetch: bool = Field(
        default=False, description="Offer the tool `web_fetch`, which reads pages at public addresses."
    )
    web_fetch_max_bytes: Annotated[int, Field(ge=1)] = Field(
        10_000_000, description="Bytes that a page may have, unpacked as well."
    )
    web_allowed_networks: Annotated[list[IPvAnyNetwork], NoDecode] = Field(
        [], description="Networks that `web_fetch` may reach although they are not public, e.g. `10.1.0.0/16`."
    )
    web_search: Literal["off", "searxng", "brave", "tavily"] = Field(
        "off", description="Search engine of the tool `web_search`."
    )
    web_search_url: str = Field("", description="Address of a SearXNG; of the others, in place of their own.")
    web_search_key: SecretStr = Field(SecretStr(""), description="Key for Brave or Tavily.")
    disabled_tools: Annotated[list[str], NoDecode] = Field(
        [], description="Names of tools that no session may use, comma-separated."
    )
    approve: Annotated[list[str], NoDecode] = Field(
        [],
        description="Tool calls that a person has to allow, comma-separated: `write_file`, `shop__*`, "
        "`bash_exec(rm *)`, `write_file(path=reports/*)`.",
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
    max_concurrent_activities: Annotated[int, Field(ge=1)] = Field(
        200, description="Model calls and tools one worker runs at once."
    )
    max_concurrent_stores: Annotated[int, Field(ge=1)] = Field(
        50, description="Stores one worker runs at once, beside model calls and tools."
    )
    shutdown_grace: Annotated[float, Field(ge=0)] = Field(
        10.0, description="Seconds running calls get after SIGTERM, then they are handed over."
    )
    build_id: str = Field("", description="Build id of this worker; it turns Worker Deployment Versioning on.")
    deployment_name: str = Field("longhaul", description="Worker deployment that the build belongs to.")
    worker_metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Prometheus port of the worker. 0: off."
    )
    api_metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Prometheus port of the API. 0: `/metrics` on the API's own port."
    )
    metrics_host: str = Field("127.0.0.1", description="Address that the Prometheus ports listen on.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Log level of every process.")

    @field_validator(
        "cors_origins",
        "disabled_tools",
        "web_allowed_networks",
        "model_standard_fallbacks",
        "model_advanced_fallbacks",
        "image_models",
        "allowed_models",
        mode="before",
    )
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("tiers", mode="before")
    @classmethod
    def _read_tiers(cls, value: object) -> object:
        if isinstance(value, str):
            pairs = [part.partition("=") for part in value.split(",") if part.strip()]
            value = {name.strip(): factor.strip() for name, _, factor in pairs}
        if isinstance(value, dict):
            value = {DEFAULT_TIER: 1.0} | {str(name).upper(): factor for name, factor in value.items()}
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
        if wrong := next((entry for entry in entries if not APPROVE_ENTRY.fullmatch(entry)), None):
            raise ValueError(f"write tool, tool(pattern) or tool(argument=pattern) instead of {wrong!r}")
        return entries

    @field_validator("models", mode="before")
    @classmethod
    def _models_as_json(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return orjson.loads(value or "{}")
        except orjson.JSONDecodeError as error:
            raise ValueError(f"a JSON object; {error}") from None

    @field_validator("context_window")
    @classmethod
    def _usable_window(cls, value: int) -> int:
        if 0 < value < WINDOW_MIN:
            raise ValueError(f"0, or at least {WINDOW_MIN}")
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite", "postgresql", "postgres://")):
            raise ValueError("a sqlite:// or postgresql:// URL")
        return _parsable(value)

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("a redis://, rediss:// or unix:// URL")
        return _parsable(value)

    @model_validator(mode="after")
    def _limits_need_users(self) -> "Settings":
        """Without authentication everybody is the same user, so limits per user apply only if they are asked for."""
        if self.auth == "off":
            for name in LIMITS_OF_USERS - self.model_fields_set:
                self.__dict__[name] = 0
        return self

    @model_validator(mode="after")
    def _auth_is_safe(self) -> "Settings":
        if self.auth == "off":
            if self.api_host not in LOOPBACK_HOSTS:
                raise ValueError(
                    "LONGHAUL_AUTH=off listens on loopback only; set LONGHAUL_AUTH=jwt or LONGHAUL_API_HOST=127.0.0.1"
                )
            if "*" in self.cors_origins:
                raise ValueError(
                    "LONGHAUL_AUTH=off allows no LONGHAUL_CORS_ORIGINS=*; name the origins, or set LONGHAUL_AUTH=jwt"
                )
            return self
        secret = self.jwt_secret.get_secret_value()
        if not (secret or self.jwt_jwks_url):
            raise ValueError("LONGHAUL_AUTH=jwt needs LONGHAUL_JWT_SECRET or LONGHAUL_JWT_JWKS_URL")
        if self.jwt_jwks_url:
            url = urlsplit(self.jwt_jwks_url)
            if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOOPBACK_HOSTS):
                raise ValueError("LONGHAUL_JWT_JWKS_URL must begin with https://; http:// is for loopback only")
            if not (self.jwt_audience and self.jwt_issuer):
                raise ValueError("LONGHAUL_JWT_JWKS_URL needs LONGHAUL_JWT_AUDIENCE and LONGHAUL_JWT_ISSUER")
        elif len(secret.encode()) < JWT_SECRET_MIN_BYTES:
            raise ValueError(f"LONGHAUL_JWT_SECRET must have at least {JWT_SECRET_MIN_BYTES} bytes")
        return self

    def model_of(self, tier: str) -> str:
        """The model of a tier."""
        return self.model_advanced if tier == "advanced" else self.model_standard

    def choose(self, name: str) -> ModelChoice | None:
        """What a session or message chooses by the name of a tier or model; None if it may not."""
        for tier in TIERS:
            if name in (tier, self.model_of(tier)):
                return ModelChoice(tier, self.model_of(tier))
        return ModelChoice("standard", name) if name in self.allowed_models else None

    def models_for(self, model: str, tier: str) -> list[str]:
        """The models that answer in place of `model`, in order, itself first: those of the tier that it belongs to."""
        fallbacks = self.model_advanced_fallbacks if tier == "advanced" else self.model_standard_fallbacks
        return list(dict.fromkeys([model, *(fallbacks if model == self.model_of(tier) else ())]))

    def workspace_of(self, root_session_id: str) -> Path:
        """The folder of the files that a session shares with all sub-sessions below it."""
        return self.workspaces_folder / root_session_id

    @property
    def workspaces_folder(self) -> Path:
        """The folder of all workspaces."""
        return Path(self.workspaces) if self.workspaces else self.home / "workspaces"

    @property
    def jobs_folder(self) -> Path:
        """The folder of what is known about commands in the background; no session sees it."""
        return self.workspaces_folder / ".jobs"

    @property
    def journals(self) -> Path:
        """The folder of the journals of this host's workers."""
        return self.home / "journals"

    @property
    def url_for_users(self) -> str:
        """What links to the API begin with."""
        host = f"[{self.api_host}]" if ":" in self.api_host else self.api_host
        return self.public_url.rstrip("/") or f"http://{host}:{self.api_port}"

    @property
    def sqlalchemy_url(self) -> str:
        """`database_url` with the driver that we use in place of the one in the URL."""
        url = self.database_url or f"sqlite:///{(self.home / 'longhaul.db').absolute()}"
        scheme, _, rest = url.partition("://")
        driver = "sqlite" if scheme.startswith("sqlite") else "postgresql+asyncpg"
        return f"{driver}://{rest}"


def without_secrets(url: str) -> str:
    """A URL without its password and without query parameters that may be secret, for logs, errors and people.

    It also works on a URL that cannot be parsed, such as one whose password contains `/` or `#`.
    """
    return _SECRET_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def variable_of(field: str) -> str:
    """The environment variable that sets a field."""
    alias = Settings.model_fields[field].alias if field in Settings.model_fields else None
    return alias or f"LONGHAUL_{field.upper()}"


def _parsable(url: str) -> str:
    """Reject a URL that cannot be parsed here, because the errors of its users would show parts of its password."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError("a URL; write special characters of the password as %XX, for example %2F for /") from None
    return url


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
