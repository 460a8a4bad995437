"""The environment of the children."""

from pathlib import Path

import pytest

from cli.stack.environment import child_environment, embedded_parts
from cli.stack.state import Endpoints
from longhaul.settings import load_settings

ENDPOINTS = Endpoints(
    api_url="http://127.0.0.1:8702",
    temporal_address="127.0.0.1:7234",
    temporal_ui_url="http://127.0.0.1:8234",
    redis_url="redis://127.0.0.1:6380/0",
    database_url="sqlite:////x/longhaul.db",
    model_base_url="http://127.0.0.1:8703/v1",
)


def test_embedded_parts_are_given_to_the_children(bare: Path) -> None:
    settings = load_settings()
    env = child_environment(settings, ENDPOINTS, embedded_parts(settings, {}), {"PATH": "/bin"})
    assert env["PATH"] == "/bin"
    assert env["TEMPORAL_ADDRESS"] == "127.0.0.1:7234"
    assert env["REDIS_URL"] == "redis://127.0.0.1:6380/0"
    assert env["DATABASE_URL"] == "sqlite:////x/longhaul.db"
    assert env["OPENAI_BASE_URL"] == "http://127.0.0.1:8703/v1"
    assert env["OPENAI_API_KEY"] == "offline"
    assert env["LONGHAUL_API_PORT"] == "8702"
    assert env["LONGHAUL_HOME"] == str(bare)
    assert env["LONGHAUL_MODEL_STANDARD"] == "offline-standard"
    assert env["LONGHAUL_MODEL_ADVANCED"] == "offline-advanced"
    assert env["LONGHAUL_MODEL_SMALL"] == "offline-small"


def test_what_the_user_set_stays(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "TEMPORAL_ADDRESS": "t:1",
        "REDIS_URL": "redis://r",
        "DATABASE_URL": "postgresql://d/x",
        "OPENAI_API_KEY": "mine",
        "TEMPORAL_API_KEY": "cloud",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    embedded = embedded_parts(settings, given)
    assert embedded == []
    env = child_environment(settings, ENDPOINTS, embedded, given)
    assert {name: env[name] for name in given} == given
    assert "OPENAI_BASE_URL" not in env
    assert "LONGHAUL_MODEL_STANDARD" not in env


def test_model_names_of_the_user_are_kept_with_the_offline_model(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGHAUL_MODEL_SMALL", "")
    settings = load_settings()
    env = child_environment(settings, ENDPOINTS, ["model"], {"LONGHAUL_MODEL_SMALL": ""})
    assert env["LONGHAUL_MODEL_SMALL"] == ""
    assert env["LONGHAUL_MODEL_STANDARD"] == "offline-standard"


def test_settings_for_another_temporal_do_not_reach_ours(bare: Path) -> None:
    base = {"TEMPORAL_API_KEY": "k", "TEMPORAL_TLS_SERVER_NAME": "x", "TEMPORAL_NAMESPACE": "mine"}
    env = child_environment(load_settings(), ENDPOINTS, ["temporal"], base)
    assert "TEMPORAL_API_KEY" not in env
    assert "TEMPORAL_TLS_SERVER_NAME" not in env
    assert env["TEMPORAL_NAMESPACE"] == "mine"


def test_a_profile_means_that_temporal_is_elsewhere(bare: Path) -> None:
    assert "temporal" not in embedded_parts(load_settings(), {"TEMPORAL_PROFILE": "prod"})


def test_settings_from_a_file_count_as_well(bare: Path) -> None:
    Path(".env").write_text("REDIS_URL=redis://from-file\n", encoding="utf-8")
    assert "redis" not in embedded_parts(load_settings(), {})
