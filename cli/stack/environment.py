"""What runs on this machine and where, and the environment variables that tell each program."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cli.stack.ports import LOOPBACK, PREFERRED, PortClaims
from cli.stack.state import Component, Endpoints, StackState, running_state
from longhaul.settings import Settings, variable_of

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
# For processes that have no API: they need no JWT secret, also where `.env` turns authentication on.
_NO_API = {"LONGHAUL_AUTH": "off", "LONGHAUL_API_HOST": LOOPBACK, "LONGHAUL_CORS_ORIGINS": ""}
OFFLINE_MODELS = {
    "model_standard": "offline-standard",
    "model_advanced": "offline-advanced",
    "model_small": "offline-small",
}
_ANY_PROGRAM = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|PYTHON\w*|VIRTUAL_ENV|LONGHAUL_HOME"
)
_DATABASE = re.compile(r"DATABASE_URL|PG\w+")
# Settings of the API, and what it needs to reach other servers; no key of the model or of a tool.
_API = re.compile(r"LONGHAUL_(?!TOKEN$|WEB_SEARCH_KEY$)\w+|REDIS_URL|TEMPORAL_\w+|SSL_CERT_\w+|(?i:\w+_proxy)")
_API_ONLY = re.compile(r"LONGHAUL_(AUTH|JWT_\w+|API_HOST|CORS_ORIGINS|TOKEN|TOOL_TOKEN_SECRET)")
#: The settings of a tool worker. It keeps the variables that are not Longhaul's: its tools may need them.
_TOOL_WORKER = re.compile(
    r"LONGHAUL_(API_URL|DISABLED_TOOLS|HEARTBEAT_\w+|LOG_LEVEL|MAX_CONCURRENT_ACTIVITIES|METRICS_HOST|PAYLOAD_CODEC"
    r"|READY_FILE|SHUTDOWN_GRACE|STORAGE_WINDOW|TASK_QUEUE|TEMPORAL_RPC_TIMEOUT|TOOLS|WORKER_METRICS_PORT)"
)
_OF_OTHERS = re.compile(r"LONGHAUL_\w+|DATABASE_URL|PG\w+|REDIS_URL|OPENAI_\w+")
_OTHER_TEMPORAL = re.compile(r"TEMPORAL_(PROFILE|CONFIG_FILE|API_KEY|TLS\w*)")


def embedded_components(settings: Settings) -> list[Component]:
    """The components that we run ourselves: those that no setting places elsewhere."""
    elsewhere: dict[Component, bool] = {
        "temporal": bool(settings.temporal_address or os.environ.get("TEMPORAL_PROFILE")),
        "redis": bool(settings.redis_url),
        "database": bool(settings.database_url),
        "model": bool(settings.openai_base_url or settings.openai_api_key.get_secret_value()),
    }
    return [component for component, is_elsewhere in elsewhere.items() if not is_elsewhere]


def choose_ports(
    settings: Settings, embedded: list[Component], last: StackState | None, claims: PortClaims
) -> dict[str, int]:
    """A port for each of our own servers: the one that the user set, else that of the last run, else the preferred."""
    needed = ["api"]
    needed += ["temporal", "temporal_ui"] if "temporal" in embedded else []
    needed += [component for component in ("redis", "model") if component in embedded]
    wanted = {name: (last.ports.get(name) if last else None) or PREFERRED[name] for name in needed}
    if "api_port" in settings.model_fields_set:
        wanted["api"] = settings.api_port
    ports: dict[str, int] = {}
    for name in needed:
        host = settings.api_host if name == "api" else LOOPBACK
        ports[name] = claims.take(wanted[name], host=host, avoid=frozenset(wanted.values()))
        if ports[name] != wanted[name]:
            log.warning("port %s is taken: %s uses %s", wanted[name], name.replace("_", " "), ports[name])
    return ports


def endpoints_of(settings: Settings, embedded: list[Component], ports: Mapping[str, int]) -> Endpoints:
    """Where everything is."""
    host = LOOPBACK if settings.api_host in ("0.0.0.0", "localhost") else settings.api_host  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    endpoints = Endpoints(
        api_url=f"http://{host}:{ports['api']}",
        temporal_address=settings.temporal_address,
        temporal_ui_url=settings.temporal_ui_url,
        redis_url=settings.redis_url,
        database_url=settings.database_url or f"sqlite:///{settings.home.absolute() / 'longhaul.db'}",
        model_base_url=settings.openai_base_url or "https://api.openai.com/v1",
    )
    if "temporal" in embedded:
        endpoints.temporal_address = f"{LOOPBACK}:{ports['temporal']}"
        endpoints.temporal_ui_url = endpoints.temporal_ui_url or f"http://{LOOPBACK}:{ports['temporal_ui']}"
    elif not endpoints.temporal_address:
        from temporalio.envconfig import ClientConfigProfile  # the SDK is slow to load and seldom needed here

        endpoints.temporal_address = ClientConfigProfile.load().address or ""
    if "redis" in embedded:
        endpoints.redis_url = f"redis://{LOOPBACK}:{ports['redis']}/0"
    if "model" in embedded:
        endpoints.model_base_url = f"http://{LOOPBACK}:{ports['model']}/v1"
    return endpoints


def stack_environment(
    settings: Settings, endpoints: Endpoints, embedded: list[Component], base: Mapping[str, str]
) -> dict[str, str]:
    """The caller's environment, with the addresses of the components that we run.

    Variables of components that run elsewhere stay as the user set them (TLS, profiles, `.env`).
    """
    env = dict(base)
    env["PYTHONPATH"] = ":".join(path for path in (str(ROOT), base.get("PYTHONPATH", "")) if path)
    env["PYTHONUNBUFFERED"] = "1"
    env[variable_of("home")] = str(settings.home.absolute())
    if endpoints.api_url:
        env[variable_of("api_host")] = settings.api_host
        env[variable_of("api_port")] = endpoints.api_url.rpartition(":")[2]
    if "temporal" in embedded:
        for name in filter(_OTHER_TEMPORAL.fullmatch, base):
            del env[name]  # it describes a server that we do not use, and would turn TLS on
        env[variable_of("temporal_address")] = endpoints.temporal_address
        env.setdefault(variable_of("temporal_ui_url"), endpoints.temporal_ui_url)
        if not settings.workspaces:  # All its processes are on this machine.
            env[variable_of("workspaces")] = str(settings.home.absolute() / "workspaces")
    if "redis" in embedded:
        env[variable_of("redis_url")] = endpoints.redis_url
    if "database" in embedded:
        env[variable_of("database_url")] = endpoints.database_url
    if "model" in embedded:
        env[variable_of("openai_base_url")] = endpoints.model_base_url
        env[variable_of("openai_api_key")] = "offline"
        for field, model in OFFLINE_MODELS.items():
            if field not in settings.model_fields_set:
                env[variable_of(field)] = model
    return env


def server_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What a server that is not ours needs. None of our settings and secrets."""
    return {name: value for name, value in env.items() if _ANY_PROGRAM.fullmatch(name)}


def migration_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What the migration needs: the database, with libpq's own variables."""
    needed = {name: value for name, value in env.items() if _DATABASE.fullmatch(name)}
    return {**server_environment(env), **needed, **_NO_API}


def api_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What the API needs: every setting except those of the model's endpoint."""
    needed = {name: value for name, value in env.items() if _DATABASE.fullmatch(name) or _API.fullmatch(name)}
    return {**server_environment(env), **needed}


def worker_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What the worker needs: everything except the API's secrets. The user's own tools may read any variable."""
    return {**{name: value for name, value in env.items() if not _API_ONLY.fullmatch(name)}, **_NO_API}


def tool_worker_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What a tool worker needs: no address of a database or Redis, no key of the model or of ours."""
    return {
        name: value for name, value in env.items() if _TOOL_WORKER.fullmatch(name) or not _OF_OTHERS.fullmatch(name)
    }


def joined_environment(settings: Settings) -> dict[str, str]:
    """Our environment, with the components that a stack running in this home provides.

    So `longhaul worker` adds a worker to a running `longhaul up`, and elsewhere needs only settings.
    """
    state = running_state(settings.home.absolute())
    if state is None:
        return dict(os.environ)
    embedded = [component for component in embedded_components(settings) if component in state.embedded]
    env = stack_environment(settings, state.endpoints.model_copy(update={"api_url": ""}), embedded, os.environ)
    env.setdefault(variable_of("api_url"), state.endpoints.api_url)
    return env
