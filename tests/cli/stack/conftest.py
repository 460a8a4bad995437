"""What the stack's tests share."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from cli.stack.progress import Progress
from longhaul.settings import Settings, variable_of


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return Progress(Console(file=io.StringIO()), tmp_path / "progress.log")


@pytest.fixture
def said(tmp_path: Path, progress: Progress) -> "Said":
    return Said(tmp_path / "progress.log")


class Said:
    """The lines that were shown."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __contains__(self, text: str) -> bool:
        return self._path.exists() and text in self._path.read_text(encoding="utf-8")


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
