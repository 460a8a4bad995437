"""What one start of the stack will use: which parts it runs itself, their ports, and everyone's URLs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from cli.stack.environment import embedded_parts
from cli.stack.parts import LOOPBACK
from cli.stack.ports import PREFERRED, PortClaims
from cli.stack.progress import Progress
from cli.stack.state import Endpoints, Part, StackState
from longhaul.settings import Settings

_OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Plan:
    """The outcome: everything that is decided before the first process starts."""

    embedded: list[Part]
    ports: dict[str, int]
    endpoints: Endpoints


def masked(url: str) -> str:
    """A URL without its password, for showing and for `state.json`."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}"))


def choose_ports(
    settings: Settings, embedded: list[Part], last: StackState | None, claims: PortClaims, progress: Progress
) -> dict[str, int]:
    """A port for each of our own servers: what the user set, else that of the last run, else the usual one."""
    needed = ["api"]
    needed += ["temporal", "temporal_ui"] if "temporal" in embedded else []
    needed += [part for part in ("redis", "model") if part in embedded]
    wanted = {name: (last.ports.get(name) if last else None) or PREFERRED[name] for name in needed}
    if "api_port" in settings.model_fields_set:
        wanted["api"] = settings.api_port
    ports: dict[str, int] = {}
    for name in needed:
        host = settings.api_host if name == "api" else LOOPBACK
        ports[name] = claims.take(wanted[name], host=host, avoid=frozenset(wanted.values()))
        if ports[name] != wanted[name]:
            progress.warn(f"port {wanted[name]} is taken: {name.replace('_', ' ')} uses {ports[name]}")
    return ports


def _profile_address() -> str:
    """The address in the profile that TEMPORAL_PROFILE names; the worker reads the same one."""
    from temporalio.envconfig import ClientConfigProfile  # the SDK is slow to load and seldom needed here

    return ClientConfigProfile.load().address or ""


def make_plan(
    settings: Settings,
    last: StackState | None,
    claims: PortClaims,
    progress: Progress,
    environment: Mapping[str, str] | None = None,
) -> Plan:
    """Decide what runs where, and say which parts are somebody else's."""
    embedded = embedded_parts(settings, os.environ if environment is None else environment)
    ports = choose_ports(settings, embedded, last, claims, progress)
    host = LOOPBACK if settings.api_host in ("0.0.0.0", "localhost") else settings.api_host  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    own_temporal = "temporal" in embedded
    endpoints = Endpoints(
        api_url=f"http://{host}:{ports['api']}",
        temporal_address=f"{LOOPBACK}:{ports['temporal']}"
        if own_temporal
        else settings.temporal_address or _profile_address(),
        temporal_ui_url=settings.temporal_ui_url
        or (f"http://{LOOPBACK}:{ports['temporal_ui']}" if own_temporal else ""),
        redis_url=f"redis://{LOOPBACK}:{ports['redis']}/0" if "redis" in embedded else masked(settings.redis_url),
        database_url=masked(settings.database_url) or f"sqlite:///{settings.home.absolute() / 'longhaul.db'}",
        model_base_url=f"http://{LOOPBACK}:{ports['model']}/v1"
        if "model" in embedded
        else settings.openai_base_url or _OPENAI,
    )
    if not own_temporal:
        progress.say(f"Temporal: {endpoints.temporal_address} (not ours, not started)")
    if "redis" not in embedded:
        progress.say(f"Redis: {endpoints.redis_url} (not ours, not started)")
    return Plan(embedded, ports, endpoints)


__all__ = ["Plan", "choose_ports", "make_plan", "masked"]
