"""A context to run tools in."""

from pathlib import Path

import pytest

from longhaul.contracts import Scope
from longhaul.tools import ToolContext


@pytest.fixture
def context(tmp_path: Path) -> ToolContext:
    """A workspace of its own, with a secret beside it."""
    (tmp_path / "secret.txt").write_text("secret")
    return ToolContext("u", "s", "t", "c", tmp_path / "workspaces" / "s", Scope())
