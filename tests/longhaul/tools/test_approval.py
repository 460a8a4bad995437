"""Which calls a person has to allow."""

import pytest
from pydantic import BaseModel

from longhaul.settings import SettingsError, load_settings
from longhaul.tools import Tool, ToolContext, tool
from longhaul.tools.approval import ApprovalRules


class Anything(BaseModel):
    pass


@tool(Anything, "Does something.", needs_approval=True)
async def always(arguments: Anything, context: ToolContext) -> str:
    return ""


@tool(Anything, "Runs a command.")
async def bash_exec(arguments: Anything, context: ToolContext) -> str:
    return ""


@tool(Anything, "Buys something.", price_microdollars=5_000)
async def buy(arguments: Anything, context: ToolContext) -> str:
    return ""


def need(approve: str, arguments: str = "{}", *, tool: Tool = bash_exec, user: str = "u") -> bool:
    return ApprovalRules(load_settings(_env_file=None, approve=approve).approve).need(tool, arguments, user)


def test_a_tool_that_says_so() -> None:
    assert ApprovalRules().need(always, "{}", "u")
    assert not ApprovalRules().need(bash_exec, "{}", "u")


@pytest.mark.parametrize("approve", ["bash_exec", "write_file, bash_exec", "bash_*", "*", "BASH_EXEC", "b?sh_exec"])
def test_by_name(approve: str) -> None:
    assert need(approve)


@pytest.mark.parametrize("approve", ["", "bash", "exec", "bash_exec2", "write_file,read_*"])
def test_by_another_name(approve: str) -> None:
    assert not need(approve)


@pytest.mark.parametrize(
    ("approve", "arguments", "needed"),
    [
        ("bash_exec(rm *)", '{"command": "rm -rf /"}', True),
        ("bash_exec(rm *)", '{"command": "RM x"}', True),
        ("bash_exec(rm *)", '{"command": "ls"}', False),
        ("bash_exec(*rm *)", '{"command": "cd /;\\nrm x"}', True),
        ("bash_exec(command=rm *)", '{"command": "rm x"}', True),
        ("bash_exec(command=rm *)", '{"other": "rm x"}', False),
        ("bash_exec(command=*a, b*)", '{"command": "echo a, b"}', True),
        ("bash_exec(*secret*)", '{"paths": ["a", {"deep": "my secret file"}]}', True),
        ("bash_exec(*secret*)", '{"secret": "a"}', False),
        ("bash_exec(timeout=1*)", '{"timeout": 120}', True),
        ("bash_exec(*)", "{}", False),
        ("bash_exec", "not JSON", False),
        ("bash_exec", "", True),
    ],
)
def test_by_arguments(approve: str, arguments: str, *, needed: bool) -> None:
    """A call whose arguments are broken is not run, so there is nothing to allow."""
    assert need(approve, arguments) is needed


@pytest.mark.parametrize(
    ("approve", "tool", "user", "needed"),
    [
        ("* if price >= 5000", buy, "u", True),
        ("* if price >= 5001", buy, "u", False),
        ("* if price >= 5000", bash_exec, "u", False),
        ("buy if user = guest-*", buy, "guest-1", True),
        ("buy if user = guest-*", buy, "Guest-1", False),
        ("buy if user != ops-*", buy, "guest-1", True),
        ("buy if user != ops-*", buy, "ops-1", False),
        ("buy if price >= 1 and user != ops-*", buy, "u", True),
        ("buy if price >= 1 and user != ops-*", buy, "ops-1", False),
        ("bash_exec, buy if price >= 6000", bash_exec, "u", True),
        ("bash_exec, buy if price >= 6000", buy, "u", False),
    ],
)
def test_by_price_and_user(approve: str, tool: Tool, user: str, *, needed: bool) -> None:
    assert need(approve, tool=tool, user=user) is needed


def test_by_arguments_and_user() -> None:
    approve = "bash_exec(rm *) if user = guest-*"
    assert need(approve, '{"command": "rm x"}', user="guest-1")
    assert not need(approve, '{"command": "ls"}', user="guest-1")
    assert not need(approve, '{"command": "rm x"}', user="u")


@pytest.mark.parametrize(
    "condition", ["cost >= 5", "price > 5", "price >= a", "user guest", "user = a b", "price >= 1 or"]
)
def test_another_condition_is_refused(condition: str) -> None:
    with pytest.raises(SettingsError, match=r"LONGHAUL_APPROVE=.* is not allowed: write price >= 5000, user = ops"):
        load_settings(_env_file=None, approve=f"buy if {condition}")


@pytest.mark.parametrize("approve", ["bash_exec(", "bash exec", "bash_exec()", "(rm *)", "write_file,a b"])
def test_another_form_is_refused(approve: str) -> None:
    with pytest.raises(SettingsError, match=r"LONGHAUL_APPROVE=.* is not allowed: write tool, tool\(pattern\)"):
        load_settings(_env_file=None, approve=approve)
