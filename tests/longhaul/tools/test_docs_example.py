"""The example in docs/tools.md does what the page says."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app

PAGE = (Path(__file__).parents[3] / "docs" / "tools.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    LONGHAUL_TOOLS=invoices longhaul (tools run .+)$", PAGE, flags=re.MULTILINE)


def split(command: str) -> list[str]:
    """A command line as a shell splits it: one argument is in quotes."""
    before, arguments, after = re.fullmatch(r"(.*) '(.*)'(.*)", command).groups()  # type: ignore[union-attr]
    return [*before.split(), arguments, *after.split()]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [module] = re.findall(r"```python\n(.+?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "invoices.py").write_text(module, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "invoices", raising=False)
    monkeypatch.setenv("LONGHAUL_TOOLS", "invoices")


def test_the_commands_of_the_page() -> None:
    runner = CliRunner()
    found, dry = (runner.invoke(app, split(command)) for command in COMMANDS)
    assert (found.exit_code, found.stdout) == (0, '{"2026-17":120,"2026-18":80}\n')
    assert (dry.exit_code, dry.stdout) == (0, "Dry run: pay_invoice was not run. It would pay invoice 2026-17.\n")
    paid = runner.invoke(app, ["tools", "run", "pay_invoice", "--args", '{"number": "2026-17"}'])
    assert (paid.exit_code, paid.stdout) == (0, "local paid 120 euros.\n")
    assert paid.stderr.splitlines() == [f"{step} of 3 talking to the bank" for step in (1, 2, 3)]
    again = runner.invoke(app, ["tools", "run", "pay_invoice", "--args", '{"number": "2026-17"}'])
    assert again.exit_code == 1
    assert str(again.exception) == "There is no open invoice '2026-17'. Open: 2026-18."
