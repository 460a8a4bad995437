"""The environment of the programs that the stack starts."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from cli.stack import programs
from cli.stack.environment import embedded_components, stack_environment, tool_worker_environment
from cli.stack.state import Endpoints
from longhaul.settings import Settings, load_settings, variable_of

ENDPOINTS = Endpoints(
    api_url="http://127.0.0.1:8702",
    temporal_address="127.0.0.1:7234",
    temporal_ui_url="http://127.0.0.1:8234",
    redis_url="redis://127.0.0.1:6380/0",
    database_url="sqlite:////x/longhaul.db",
    model_base_url="http://127.0.0.1:8703/v1",
)


def test_programs_get_the_addresses_of_embedded_components(bare: Path) -> None:
    settings = load_settings()
    env = stack_environment(settings, ENDPOINTS, embedded_components(settings), {"PATH": "/bin"})
    assert env["PATH"] == "/bin"
    assert env["TEMPORAL_ADDRESS"] == "127.0.0.1:7234"
    assert env["REDIS_URL"] == "redis://127.0.0.1:6380/0"
    assert env["DATABASE_URL"] == "sqlite:////x/longhaul.db"
    assert env["OPENAI_BASE_URL"] == "http://127.0.0.1:8703/v1"
    assert env["OPENAI_API_KEY"] == "offline"
    assert env["LONGHAUL_API_PORT"] == "8702"
    assert env["LONGHAUL_HOME"] == str(bare)
    assert env["LONGHAUL_WORKSPACES"] == str(bare / "workspaces")
    assert env["LONGHAUL_MODEL_STANDARD"] == "offline-standard"
    assert env["LONGHAUL_MODEL_ADVANCED"] == "offline-advanced"
    assert env["LONGHAUL_MODEL_SMALL"] == "offline-small"


def test_what_the_user_set_stays(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_set = {
        "TEMPORAL_ADDRESS": "t:1",
        "REDIS_URL": "redis://r",
        "DATABASE_URL": "postgresql://d/x",
        "OPENAI_API_KEY": "mine",
        "TEMPORAL_API_KEY": "cloud",
    }
    for name, value in user_set.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    embedded = embedded_components(settings)
    assert embedded == []
    env = stack_environment(settings, ENDPOINTS, embedded, user_set)
    assert {name: env[name] for name in user_set} == user_set
    assert "OPENAI_BASE_URL" not in env
    assert "LONGHAUL_MODEL_STANDARD" not in env
    assert "LONGHAUL_WORKSPACES" not in env, "on several hosts nobody but the operator knows the shared folder"


def test_model_names_of_the_user_are_kept_with_the_offline_model(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGHAUL_MODEL_SMALL", "")
    settings = load_settings()
    env = stack_environment(settings, ENDPOINTS, ["model"], {"LONGHAUL_MODEL_SMALL": ""})
    assert env["LONGHAUL_MODEL_SMALL"] == ""
    assert env["LONGHAUL_MODEL_STANDARD"] == "offline-standard"


def test_settings_for_another_temporal_do_not_reach_ours(bare: Path) -> None:
    base = {"TEMPORAL_API_KEY": "k", "TEMPORAL_TLS_SERVER_NAME": "x", "TEMPORAL_NAMESPACE": "mine"}
    env = stack_environment(load_settings(), ENDPOINTS, ["temporal"], base)
    assert "TEMPORAL_API_KEY" not in env
    assert "TEMPORAL_TLS_SERVER_NAME" not in env
    assert env["TEMPORAL_NAMESPACE"] == "mine"


def test_a_profile_means_that_temporal_is_elsewhere(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_PROFILE", "prod")
    assert "temporal" not in embedded_components(load_settings())


def test_settings_from_a_file_count_as_well(bare: Path) -> None:
    Path(".env").write_text("REDIS_URL=redis://from-file\n", encoding="utf-8")
    assert "redis" not in embedded_components(load_settings())


SECRETS = {
    "OPENAI_API_KEY": "model-key",
    "LONGHAUL_JWT_SECRET": "jwt-secret",
    "LONGHAUL_TOKEN": "bearer-token",
    "DATABASE_URL": "postgresql://me:db-password@db/x",
    "PGPASSWORD": "pg-password",
    "REDIS_URL": "redis://:redis-password@redis/0",
    "TEMPORAL_API_KEY": "temporal-key",
    "MY_TOOL_KEY": "tool-key",
    "LONGHAUL_WEB_SEARCH_KEY": "search-key",
    "LONGHAUL_CREDENTIAL_KEYS": "credential-keys",
    "LONGHAUL_OAUTH_PROVIDERS": "client-secrets",
}
NEEDED = {
    "migrate": {"DATABASE_URL", "PGPASSWORD"},
    "temporal": set(),
    "redis": set(),
    "model": set(),
    "worker": set(SECRETS) - {"LONGHAUL_JWT_SECRET", "LONGHAUL_TOKEN"},
    "api": {
        *("LONGHAUL_JWT_SECRET", "DATABASE_URL", "PGPASSWORD", "REDIS_URL", "TEMPORAL_API_KEY"),
        *("LONGHAUL_CREDENTIAL_KEYS", "LONGHAUL_OAUTH_PROVIDERS"),
    },
}


def test_each_program_gets_only_the_secrets_that_it_needs(bare: Path) -> None:
    settings, ports = load_settings(), {"temporal": 1, "temporal_ui": 2}
    env = {**SECRETS, "PATH": "/bin", "LC_ALL": "C", "LONGHAUL_HOME": str(bare), "LONGHAUL_AUTH": "jwt"}
    stack = [
        programs.migrate(env),
        programs.temporal(Path("temporal"), settings, ports, env),
        programs.redis(Path("redis"), settings, 3, env),
        programs.model(4, env),
        programs.worker(settings, env),
        programs.api("http://a", env),
    ]
    assert {program.name: set(SECRETS) & set(program.env or ()) for program in stack} == NEEDED
    for program in stack:
        assert program.env is not None, program.name
        assert program.env["PATH"] == "/bin"
        assert program.env["LC_ALL"] == "C"


def test_processes_without_an_api_need_no_jwt_secret(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"LONGHAUL_JWT_SECRET": "s" * 32}
    stack = [programs.migrate(env), programs.worker(load_settings(), env)]
    Path(".env").write_text("LONGHAUL_AUTH=jwt\nLONGHAUL_API_HOST=0.0.0.0\nLONGHAUL_CORS_ORIGINS=*\n", encoding="utf-8")
    for program in stack:
        for name, value in (program.env or {}).items():
            monkeypatch.setenv(name, value)
        assert load_settings().auth == "off"


def test_the_dev_server_is_fast(bare: Path) -> None:
    program = programs.temporal(Path("temporal"), load_settings(), {"temporal": 1, "temporal_ui": 2}, {})
    assert '--dynamic-config-value=history.workflowIdReuseMinimalInterval="0s"' in program.argv
    assert "--dynamic-config-value=history.transferProcessorMaxPollRPS=2000" in program.argv
    assert "--dynamic-config-value=system.forceNexusEndpointRefreshOnRead=false" in program.argv
    assert program.env == {"GOGC": "400"}


def test_a_tool_worker_gets_no_secrets() -> None:
    """No address of a database or Redis, and no secret setting, whichever there will be."""
    secret = {variable_of(name) for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
    refused = {*secret, "DATABASE_URL", "PGPASSWORD", "REDIS_URL", "OPENAI_BASE_URL", "LONGHAUL_TOKEN", "LONGHAUL_HOME"}
    needed = {"PATH", "TEMPORAL_ADDRESS", "LONGHAUL_API_URL", "LONGHAUL_TOOLS", "LONGHAUL_TASK_QUEUE", "ITS_OWN_KEY"}
    assert len(secret) > 3
    assert set(tool_worker_environment(dict.fromkeys(refused | needed, "x"))) == needed
