"""Which tools a process has: ours, those of packages, those of the operator; and what is wrong with them."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from longhaul.settings import Settings, SettingsError, load_settings
from longhaul.tools import default_tools, load
from longhaul.tools.load import load_tools

OURS = [tool.name for tool in default_tools()]
MODULE = """
from longhaul.tools import Registry, tool

@tool
async def {name}(city: str) -> str:
    "Look."
    return city

@tool(requires=("{name}",))
async def {name}_after(city: str) -> str:
    "Look again."
    return city

one = {name}
several = [{name}, {name}_after]
registry = Registry(several)
made = lambda: registry
nothing = 5
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from; its modules are forgotten after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def write(folder: Path, module: str, text: str) -> None:
    (folder / f"{module}.py").write_text(text)


def settings(tools: str = "", disabled_tools: str = "") -> Settings:
    return load_settings(tools=tools, disabled_tools=disabled_tools)


@pytest.mark.parametrize(
    "value", ["mine", "mine:several", "mine:registry", "mine:made", "mine:one, mine:several", " mine ,"]
)
def test_own_tools_stand_beside_ours(folder: Path, value: str) -> None:
    write(folder, "mine", MODULE.format(name="look"))
    assert [tool.name for tool in load_tools(settings(value))] == [*OURS, "look", "look_after"]


def test_without_settings_there_are_ours() -> None:
    assert [tool.name for tool in load_tools(settings())] == OURS


def test_an_own_tool_replaces_ours_of_that_name(folder: Path) -> None:
    write(folder, "mine", MODULE.format(name="calculator"))
    registry = load_tools(settings("mine"))
    replaced = registry.find("calculator")
    assert replaced is not None
    assert replaced.description == "Look."
    assert [tool.name for tool in registry] == [*OURS, "calculator_after"]


def test_tools_are_turned_off(folder: Path) -> None:
    write(folder, "mine", MODULE.format(name="look"))
    names = [tool.name for tool in load_tools(settings("mine", "look_after, write_file"))]
    assert names == [*(name for name in OURS if name != "write_file"), "look"]


@pytest.mark.parametrize(
    ("tools", "disabled", "defect"),
    [
        ("absent", "", "LONGHAUL_TOOLS='absent' is not allowed: it cannot be imported: No module named 'absent'"),
        ("mine:absent", "", "LONGHAUL_TOOLS='mine:absent' is not allowed: mine has no 'absent'"),
        ("mine:nothing", "", "LONGHAUL_TOOLS='mine:nothing' is not allowed: .*it must be a tool, a list"),
        ("sys", "", "LONGHAUL_TOOLS='sys' is not allowed: .*has no tools; put @tool above a function"),
        ("broken", "", "LONGHAUL_TOOLS='broken' is not allowed: ZeroDivisionError"),
        ("wrong", "", "LONGHAUL_TOOLS='wrong' is not allowed: ValueError: tool 'look' has no docstring"),
        ("mine,other", "", "tool 'look' of other has the name of a tool of mine"),
        ("waits", "", "tool 'wait' of waits: the name is taken"),
        ("mine", "lok", "LONGHAUL_DISABLED_TOOLS='lok' is not allowed: the tools are .*look"),
        ("mine", "look", "tool 'look_after' of mine requires 'look', which is no tool here"),
    ],
)
def test_a_wrong_entry_is_one_line_at_the_start(folder: Path, tools: str, disabled: str, defect: str) -> None:
    write(folder, "mine", MODULE.format(name="look"))
    write(folder, "other", MODULE.format(name="look"))
    write(folder, "waits", MODULE.format(name="wait"))
    write(folder, "broken", "1 / 0")
    write(folder, "wrong", "from longhaul.tools import tool\n@tool\nasync def look(): pass")
    with pytest.raises(SettingsError, match=f"^{defect}") as raised:
        load_tools(settings(tools, disabled))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "defect"),
    [
        ("look", "mine", ""),
        ("look", "mine:several", ""),
        ("look", "absent", "its entry point extra = 'absent' in 'longhaul.tools' cannot be used: ModuleNotFoundError"),
        ("calculator", "mine", "tool 'calculator' of .* has the name of a tool of Longhaul; rename one"),
    ],
)
def test_packages_bring_tools(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, defect: str
) -> None:
    """A package cannot put its own tool in the place of one of ours."""
    write(folder, "mine", MODULE.format(name=name))
    entry = EntryPoint(name="extra", value=value, group=load.GROUP)
    monkeypatch.setattr(load, "entry_points", lambda group: [entry] if group == "longhaul.tools" else [])
    if defect:
        with pytest.raises(SettingsError, match=defect):
            load_tools(settings())
    else:
        assert [tool.name for tool in load_tools(settings())] == [*OURS, "look", "look_after"]
