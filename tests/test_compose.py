"""The Compose file: valid by the Compose Specification's own schema, hardened, and in step with our settings."""

import asyncio
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
import yaml
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from api.app import create_app
from cli.stack.binaries import find_redis
from cli.stack.programs import TEMPORAL_DYNAMIC_CONFIG
from longhaul.settings import Settings, load_settings, variable_of
from scripts.settings_doc import COMMAND_LINE
from testkit.postgres import PostgresServer
from testkit.process import Process
from testkit.servers import HOST, free_port
from testkit.wait import until

ROOT = Path(__file__).parents[1]
OURS = ("migrate", "api", "worker")
SECRETS = {
    "migrate": {"DATABASE_URL"},
    "api": {"DATABASE_URL", "REDIS_URL", "LONGHAUL_JWT_SECRET"},
    "worker": {"DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY"},
}
INTERPOLATION = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return found


def interpolated(value: str, variables: dict[str, str]) -> str:
    """As Compose does it: the variable, else its default; a required one must be set."""

    def replace(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if variables.get(name):
            return variables[name]
        assert kind == "-", f"{name} is required: {rest}"
        return rest

    return INTERPOLATION.sub(replace, value)


def test_valid_by_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = orjson.loads((ROOT / "tests/data/compose-spec.json").read_bytes())
    jsonschema.Draft7Validator(schema).validate(compose)


def test_the_schema_finds_a_mistake(compose: dict[str, Any]) -> None:
    """A validation that accepts everything would show nothing."""
    schema = orjson.loads((ROOT / "tests/data/compose-spec.json").read_bytes())
    broken = {**compose, "services": {"api": {**compose["services"]["api"], "helthcheck": {}}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(broken)


def test_has_every_service_with_a_health_check(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"postgres", "redis", "temporal", "temporal-ui", *OURS}
    without = {name for name, service in services.items() if "healthcheck" not in service}
    assert without == {"migrate", "temporal-ui"}  # the one ends, nothing waits for the other


def test_waits_only_for_what_can_become_true(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, (name, other)
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], (name, other)
            else:
                assert how["condition"] == "service_completed_successfully"
                assert services[other]["restart"] == "no"


@pytest.mark.parametrize("service", OURS)
def test_every_variable_is_a_setting(compose: dict[str, Any], service: str) -> None:
    known = {variable_of(field) for field in Settings.model_fields} | set(COMMAND_LINE)
    assert set(compose["services"][service]["environment"]) <= known


def test_every_longhaul_variable_that_is_asked_for_exists() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8") + (ROOT / "Dockerfile").read_text(encoding="utf-8")
    known = {variable_of(field) for field in Settings.model_fields} | set(COMMAND_LINE)
    assert set(re.findall(r"\bLONGHAUL_\w+", text)) <= known


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secret files as the script makes them."""
    folder = tmp_path_factory.mktemp("secrets")
    for _ in range(2):  # a second run changes nothing, or the passwords would no longer be those of the databases
        subprocess.run(
            [ROOT / "scripts/compose_secrets", folder], check=True, env={**os.environ, "OPENAI_API_KEY": "k"}
        )
    return folder


def mounted(compose: dict[str, Any], service: str, secrets: Path, folder: Path) -> Path:
    """A service's `/run/secrets`."""
    target = folder / "run-secrets"
    target.mkdir()
    for secret in compose["services"][service]["secrets"]:
        source, name = (secret, secret) if isinstance(secret, str) else (secret["source"], secret["target"])
        assert compose["secrets"][source] == {"file": f"secrets/{source}"}
        (target / name).write_text((secrets / source).read_text(encoding="utf-8"), encoding="utf-8")
    return target


@pytest.mark.parametrize("service", OURS)
def test_settings_accept_the_environment(
    compose: dict[str, Any], service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secrets: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    for name, value in compose["services"][service]["environment"].items():
        monkeypatch.setenv(name, interpolated(value, {}))
    folder = mounted(compose, service, secrets, tmp_path)
    assert {file.name for file in folder.iterdir()} == SECRETS[service]
    monkeypatch.setenv("LONGHAUL_SECRETS_DIR", str(folder))
    settings = load_settings()
    password = (secrets / "longhaul_database_password").read_text(encoding="utf-8")
    assert len(password) == 48
    assert settings.sqlalchemy_url == f"postgresql+asyncpg://longhaul:{password}@postgres:5432/longhaul"
    assert settings.temporal_address == "temporal:7233"
    if service == "api":
        assert settings.auth == "jwt"
        assert settings.api_host == "0.0.0.0"  # noqa: S104  # inside the container
        assert len(settings.jwt_secret.get_secret_value()) == 48
    if service == "worker":
        assert settings.openai_api_key.get_secret_value() == "k"


def test_passwords_are_in_files_and_not_in_variables(compose: dict[str, Any]) -> None:
    variables = {name for service in compose["services"].values() for name in service.get("environment", {})}
    assert {name for name in variables if re.search(r"PASS|PWD|SECRET|KEY|TOKEN", name)} == {"POSTGRES_PASSWORD_FILE"}
    assert "secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_every_container_is_restricted(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        image = interpolated(service["image"], {})
        assert image == "longhaul:local" or re.fullmatch(r"[\w/-]+:\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}", image), name
    assert {name for name, service in compose["services"].items() if service.get("read_only")} == set(OURS)


def test_servers_and_metrics_are_reachable_inside_only(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert compose["networks"]["inside"] == {"internal": True}
    for name in ("postgres", "redis", "temporal", "migrate"):
        assert services[name]["networks"] == ["inside"], name
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        "temporal-ui": ["127.0.0.1:${TEMPORAL_UI_PORT:-8233}:8080"],
        "api": ["${API_PORT:-8700}:8700"],
    }
    for name in ("api", "worker"):
        environment = services[name]["environment"]
        assert environment[f"LONGHAUL_{name.upper()}_METRICS_PORT"] == "9464"
        assert environment["LONGHAUL_METRICS_HOST"] == "0.0.0.0"  # noqa: S104  # inside the container


def test_metrics_leave_the_api_port_when_they_have_their_own() -> None:
    def has_metrics(settings: Settings) -> bool:
        return "/metrics" in create_app(settings).openapi()["paths"]

    assert has_metrics(load_settings())
    assert not has_metrics(load_settings(api_metrics_port=9464))


def test_temporal_is_as_fast_as_in_the_embedded_stack(compose: dict[str, Any]) -> None:
    content = yaml.safe_load(compose["configs"]["temporal"]["content"])
    values = {name: entries[0]["value"] for name, entries in content.items()}
    assert values.items() >= TEMPORAL_DYNAMIC_CONFIG.items()
    environment = compose["services"]["temporal"]["environment"]
    assert environment["NUM_HISTORY_SHARDS"] == "512"
    assert environment["GOGC"] == "400"
    assert environment["DYNAMIC_CONFIG_FILE_PATH"] == compose["services"]["temporal"]["configs"][0]["target"]


def test_the_health_check_notices_a_hung_worker(compose: dict[str, Any], tmp_path: Path) -> None:
    check = compose["services"]["worker"]["healthcheck"]["test"][1].replace("$$", "$")
    ready = tmp_path / "worker.ready"
    assert compose["services"]["worker"]["environment"]["LONGHAUL_READY_FILE"] in check
    check = check.replace("/tmp/worker.ready", str(ready))

    def healthy() -> bool:
        return subprocess.run(["sh", "-c", check], capture_output=True).returncode == 0

    assert not healthy()
    ready.touch()
    assert healthy()
    os.utime(ready, (time.time() - 60, time.time() - 60))
    assert not healthy()


@pytest.mark.integration
async def test_redis_starts_with_a_password_and_never_evicts(
    compose: dict[str, Any], secrets: Path, tmp_path: Path
) -> None:
    """The container's own command, with its paths below a temporary folder."""
    port = free_port()
    (tmp_path / "longhaul-redis.conf").write_text(
        compose["configs"]["redis"]["content"].replace("dir /data", f"dir {tmp_path}\nport {port}"), encoding="utf-8"
    )
    folder = mounted(compose, "redis", secrets, tmp_path)
    script = (
        compose["services"]["redis"]["command"][2].replace("$$", "$").replace("/tmp/redis.conf", f"{tmp_path}/conf")
    )
    script = script.replace("/run/secrets", str(folder)).replace("/etc/", f"{tmp_path}/")
    script = script.replace("redis-server", str(find_redis().path))
    server = Process("redis", ["sh", "-c", script], tmp_path / "log")
    server.start()
    url = f"redis://:{(secrets / 'redis_password').read_text(encoding='utf-8')}@{HOST}:{port}/0"
    client, stranger = Redis.from_url(url), Redis(host=HOST, port=port)
    try:
        await until(lambda: "Ready to accept connections" in server.tail(), what="Redis accepts connections")
        assert (await client.config_get("maxmemory*"))["maxmemory-policy"] == "noeviction"
        assert (await client.config_get("maxmemory"))["maxmemory"] == str(512 * 1024**2)
        with pytest.raises(AuthenticationError):
            await stranger.ping()
    finally:
        await client.aclose()
        await stranger.aclose()
        await server.terminate()


@pytest.mark.integration
async def test_longhaul_and_temporal_have_users_of_their_own(
    compose: dict[str, Any], secrets: Path, tmp_path: Path
) -> None:
    server = PostgresServer(tmp_path / "postgres")
    await server.start()
    try:
        folder = mounted(compose, "postgres", secrets, tmp_path)
        script = tmp_path / "users.sql"
        content = compose["configs"]["postgres_users"]["content"].replace("$$", "$")
        script.write_text(content.replace("/run/secrets", str(folder)), encoding="utf-8")
        psql = ["psql", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p", str(server.port), "-d", "postgres", "-q", "-U"]

        def run(user: str, *options: str) -> int:
            ended = subprocess.run([*psql, user, *options], capture_output=True, text=True, timeout=60)
            return ended.returncode

        assert await asyncio.to_thread(run, "postgres", "-f", str(script)) == 0
        for user, database, allowed in (
            ("longhaul", "longhaul", True),
            ("longhaul", "temporal", False),
            ("temporal", "temporal", True),
            ("temporal", "longhaul", False),
            # Temporal's own schema creates this extension.
            ("temporal", "temporal_visibility", True),
        ):
            statement = "CREATE TABLE t (id int); CREATE EXTENSION IF NOT EXISTS btree_gin"
            code = await asyncio.to_thread(run, user, "-d", database, "-c", statement)
            assert (code == 0) is allowed, (user, database)
    finally:
        await server.stop()
        server.remove()


def test_image_holds_what_runs_and_does_not_run_as_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes -r requirements.lock" in dockerfile
    assert "\nUSER longhaul\n" in dockerfile
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    assert {"activities", "api", "longhaul", "workflows", "worker.py", "requirements.lock"} <= set(kept)


@pytest.mark.parametrize("service", OURS)
def test_commands_exist(compose: dict[str, Any], service: str) -> None:
    from cli.app import app

    names = {command.name for command in app.registered_commands}
    assert set(compose["services"][service]["command"]) <= names
