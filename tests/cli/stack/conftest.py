"""What the stack's tests share."""

import logging
from pathlib import Path

import pytest

from longhaul.settings import Settings, variable_of


@pytest.fixture(autouse=True)
def _log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cli.stack")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No setting in the environment, no `.env`, a home of its own."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    for name in ("TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGHAUL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
