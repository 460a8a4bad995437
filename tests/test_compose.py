"""The Compose file: valid by the Compose Specification's own schema, and in step with our settings."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
import yaml

from longhaul.settings import Settings, load_settings, variable_of
from scripts.settings_doc import COMMAND_LINE

ROOT = Path(__file__).parents[1]
OURS = ("migrate", "api", "worker")
INTERPOLATION = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return found


def interpolated(value: str, given: dict[str, str]) -> str:
    """As Compose does it: the variable, else its default; a required one must be given."""

    def replace(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if given.get(name):
            return given[name]
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


@pytest.mark.parametrize("service", OURS)
def test_settings_accept_the_environment(
    compose: dict[str, Any], service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {"POSTGRES_PASSWORD": "p", "LONGHAUL_JWT_SECRET": "s" * 32}
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    for name, value in compose["services"][service]["environment"].items():
        monkeypatch.setenv(name, interpolated(value, given))
    settings = load_settings()
    assert settings.sqlalchemy_url == "postgresql+asyncpg://longhaul:p@postgres:5432/longhaul"
    assert settings.temporal_address == "temporal:7233"


def test_api_beyond_loopback_needs_a_secret(compose: dict[str, Any]) -> None:
    environment = compose["services"]["api"]["environment"]
    assert environment["LONGHAUL_API_HOST"] == "0.0.0.0"  # noqa: S104  # inside the container
    assert environment["LONGHAUL_AUTH"] == "jwt"
    with pytest.raises(AssertionError, match="LONGHAUL_JWT_SECRET is required"):
        interpolated(environment["LONGHAUL_JWT_SECRET"], {})


def test_image_holds_what_runs_and_runs_as_nobody_special() -> None:
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
