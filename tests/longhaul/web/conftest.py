"""A context to run tools in."""

from pathlib import Path

import pytest

from longhaul.contracts import Scope
from longhaul.tools import ToolContext


@pytest.fixture
def context(tmp_path: Path) -> ToolContext:
    return ToolContext("u", "s", "t", "c", tmp_path, Scope())
