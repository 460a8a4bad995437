"""A worker in production loads nothing of the command line."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration  # it starts processes

UNWANTED = {"cli", "psutil", "rich", "typer"}


def top_level_modules(statement: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(ended.stdout.split())


def test_the_worker_imports_nothing_of_the_command_line() -> None:
    loaded = top_level_modules("import worker")
    assert {"worker", "workflows", "activities", "longhaul", "temporalio"} <= loaded
    assert loaded & UNWANTED == set()


def test_the_command_line_imports_would_be_seen() -> None:
    assert {"cli", "rich", "typer"} <= top_level_modules("import cli.app")
