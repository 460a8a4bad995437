"""The environment of every child process, built in this one place."""

from collections.abc import Mapping
from pathlib import Path

from cli.stack.state import Endpoints, Part
from longhaul.settings import Settings, variable_of

ROOT = Path(__file__).resolve().parents[2]
OFFLINE_MODELS = {
    "model_standard": "offline-standard",
    "model_advanced": "offline-advanced",
    "model_small": "offline-small",
}
_OTHER_TEMPORAL = ("TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE", "TEMPORAL_API_KEY")


def embedded_parts(settings: Settings, environment: Mapping[str, str]) -> list[Part]:
    """The parts that we run ourselves: those that no setting places elsewhere."""
    parts: list[Part] = []
    if not settings.temporal_address and not environment.get("TEMPORAL_PROFILE"):
        parts.append("temporal")
    if not settings.redis_url:
        parts.append("redis")
    if not settings.database_url:
        parts.append("database")
    if not settings.openai_base_url and not settings.openai_api_key.get_secret_value():
        parts.append("model")
    return parts


def child_environment(
    settings: Settings, endpoints: Endpoints, embedded: list[Part], base: Mapping[str, str]
) -> dict[str, str]:
    """What a worker, the API and the rest are started with: the caller's environment and where our parts are.

    Parts that run elsewhere are not touched, so whatever the user wrote (TLS, profiles, `.env`) holds.
    """
    env = dict(base)
    env["PYTHONPATH"] = ":".join(path for path in (str(ROOT), base.get("PYTHONPATH", "")) if path)
    env["PYTHONUNBUFFERED"] = "1"
    env[variable_of("home")] = str(settings.home.absolute())
    if endpoints.api_url:
        env[variable_of("api_host")] = settings.api_host
        env[variable_of("api_port")] = endpoints.api_url.rpartition(":")[2]
    if "temporal" in embedded:
        for name in [name for name in env if name in _OTHER_TEMPORAL or name.startswith("TEMPORAL_TLS")]:
            del env[name]  # they belong to a server that we do not talk to, and would turn TLS on
        env[variable_of("temporal_address")] = endpoints.temporal_address
        env.setdefault(variable_of("temporal_ui_url"), endpoints.temporal_ui_url)
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


__all__ = ["OFFLINE_MODELS", "ROOT", "child_environment", "embedded_parts"]
