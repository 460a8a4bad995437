"""`longhaul tools`: begin a tool, try it, see what there is; errors in one line."""

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from longhaul.settings import Settings, variable_of

runner = CliRunner()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def tools(*arguments: str) -> Result:
    return runner.invoke(app, ["tools", *arguments])


def error(*arguments: str) -> str:
    """The line that a failing command shows."""
    result = tools(*arguments)
    assert result.exit_code == 1
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_a_new_tool_runs_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tools("new", "weather")
    assert made.exit_code == 0
    assert "LONGHAUL_TOOLS=weather longhaul tools run weather" in made.stdout
    monkeypatch.setenv("LONGHAUL_TOOLS", "weather")
    ran = tools("run", "weather", "--args", '{"subject": "rain", "times": 2}')
    assert (ran.stdout, ran.stderr) == ("1. rain\n2. rain\n", "1 of 2 line 1\n2 of 2 line 2\n")
    assert error("run", "weather", "--args", '{"subject": "rain", "times": 11}') == "`times` must be between 1 and 10."
    assert error("run", "weather", "--args", "{").startswith("weather: the arguments are not valid JSON")
    assert error("new", "weather") == "weather.py exists; choose another name"


@pytest.mark.parametrize("name", ["a-b", "class", "../x", "", "wäre"])
def test_a_name_that_is_none_is_refused(folder: Path, name: str) -> None:
    assert "cannot name a module" in error("new", name)
    assert list(folder.iterdir()) == []


def test_what_cannot_be_run_alone() -> None:
    assert re.search(r"'fly' does not exist\. Available: .*\bcalculator\b", error("run", "fly"))
    assert error("run", "wait", "--args", '{"seconds": 1}').endswith("cannot be run alone.")


def test_files_of_a_tool_are_in_the_given_folder(folder: Path) -> None:
    (folder / "there").mkdir()
    arguments = '{"path": "a", "content": "x"}'
    assert "It would write a." in tools("run", "write_file", "--args", arguments, "--dry-run").stdout
    assert list((folder / "there").iterdir()) == []
    assert tools("run", "write_file", "--args", arguments, "--workspace", "there").exit_code == 0
    assert (folder / "there" / "a").read_text() == "x"


def test_the_list_says_where_tools_come_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    tools("new", "weather")
    monkeypatch.setenv("LONGHAUL_TOOLS", "weather")
    monkeypatch.setenv("LONGHAUL_DISABLED_TOOLS", "write_file")
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in tools("list").stdout.splitlines()}
    assert lines["weather"][0] == "weather"
    assert lines["write_file"][0] == "Longhaul"
    assert lines["write_file"][1].rstrip().endswith("(turned off, changes something)")


def test_a_wrong_entry_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGHAUL_TOOLS", "absent")
    assert str(tools("list").exception).startswith("LONGHAUL_TOOLS='absent' is not allowed: it cannot be imported")


@pytest.mark.integration
def test_tools_of_mcp_servers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rude = Path(__file__).parents[1] / "longhaul" / "mcp" / "rude_server.py"
    config = {"mcpServers": {"rude": {"command": sys.executable, "args": [str(rude)]}}}
    (folder / "mcp.json").write_text(json.dumps(config))
    monkeypatch.setenv("LONGHAUL_MCP_CONFIG", "mcp.json")
    monkeypatch.setenv("COLUMNS", "200")
    listed = tools("list")
    assert re.search(r"rude__do +MCP server rude +Misbehave\. \(changes something, runs at most once\)", listed.stdout)
    ran = tools("run", "rude__do", "--args", '{"how": "write nonsense"}')
    assert (ran.exit_code, ran.stdout) == (0, "write nonsense\n")
    assert tools("run", "rude__do", "--args", "{}", "--dry-run").stdout == "Dry run: rude__do was not run.\n"
    monkeypatch.setenv("LONGHAUL_MCP_CONFIG", "none.json")
    assert "LONGHAUL_MCP_CONFIG='none.json' is not allowed: it cannot be read" in error("list")
