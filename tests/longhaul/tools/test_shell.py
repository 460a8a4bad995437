"""The tools of the shell."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from longhaul.contracts import Scope, ToolProgress
from longhaul.sandbox.output import HEAD_BYTES, TAIL_BYTES, Output, secrets_of
from longhaul.settings import load_settings
from longhaul.tools import Tool, ToolContext, ToolError
from longhaul.tools.load import load_tools
from longhaul.tools.shell import shell_tools
from testkit.wait import until
from tests.longhaul.sandbox.conftest import possible, refusal

pytestmark = pytest.mark.integration  # it starts processes

__all__ = ["possible"]
SECRET = "sk-12345678"
ON = {"shell": "on"}


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, Tool]:
    settings = load_settings(**ON, workspaces=str(tmp_path / "workspaces"), openai_api_key=SECRET)
    return {tool.name: tool for tool in shell_tools(settings)}


async def call(tool: Tool, context: ToolContext, **arguments: Any) -> str:
    assert tool.run is not None
    return await tool.run(tool.parse(orjson.dumps(arguments).decode()), context)


def test_it_is_off_unless_it_is_turned_on(tools: dict[str, Tool]) -> None:
    offered = {tool.name for tool in load_tools(load_settings())}
    assert {tool.name for tool in load_tools(load_settings(**ON))} - offered == set(tools)
    assert sorted(tools) == ["bash_exec", "bash_kill", "bash_status", "python_exec"]
    assert all(tool.changes for name, tool in tools.items() if name != "bash_status"), "a dry run runs none"
    assert not any(tools[name].repeatable for name in ("bash_exec", "python_exec"))


async def test_commands_and_programs(tools: dict[str, Tool], context: ToolContext, possible: bool) -> None:
    reports: list[ToolProgress] = []
    context = replace(context, report=reports.append)
    running = call(tools["bash_exec"], context, command="echo hi > f; cat f; false")
    if not possible:
        await refusal(running, ToolError)
    assert (await running).startswith("hi\n[exit code 1, ")
    assert [report.text for report in reports] == ["hi"]
    said = await call(tools["python_exec"], context, code="print(open('f').read() * 2)\nraise SystemExit(5)")
    assert said.startswith("hi\nhi\n[exit code 5, ")
    said = await call(tools["bash_exec"], context, command=f"echo key {SECRET}")
    assert said.startswith("key ***\n")
    with pytest.raises(
        ToolError, match=r"(?s)begun\n\[it was ended: it exceeded its time of 5 s. Run long commands in"
    ):
        await call(tools["bash_exec"], context, command="echo begun; sleep 600", timeout=5)


async def test_a_command_in_the_background(tools: dict[str, Tool], context: ToolContext, possible: bool) -> None:
    running = call(tools["bash_exec"], context, command="echo begun; sleep 600", background=True)
    if not possible:
        await refusal(running, ToolError)
    job_id = (await running).split("'")[1]

    async def begun() -> bool:
        return (await call(tools["bash_status"], context, job_id=job_id)).startswith("begun\n[")

    await until(begun, what="its first output")
    assert f"[{job_id} runs for " in await call(tools["bash_status"], context, job_id=job_id)
    foreign = ToolContext("u", "s2", "t", "c", context.workspace.parent / "s2", Scope())
    with pytest.raises(ToolError, match="There is no command"):
        await call(tools["bash_kill"], foreign, job_id=job_id)
    assert await call(tools["bash_kill"], context, job_id=job_id) == f"[{job_id} was ended: as it was asked for]"


async def test_without_a_sandbox_a_call_is_refused(tmp_path: Path, context: ToolContext) -> None:
    settings = load_settings(**ON, workspaces=str(tmp_path), shell_bubblewrap="/nowhere/bwrap")
    for tool in shell_tools(settings)[:2]:
        arguments = {"command": "true"} if tool.name == "bash_exec" else {"code": "1"}
        for more in ({}, {"background": True}):
            with pytest.raises(ToolError, match=r"there is no '/nowhere/bwrap' here. Install bubblewrap"):
                await call(tool, context, **arguments, **more)


def test_the_middle_of_a_long_output_is_left_out() -> None:
    output = Output([])
    for _ in range(3):
        output.add(b"x" * HEAD_BYTES)
    assert output.text == "x" * 3 * HEAD_BYTES
    output.add(b"y" * TAIL_BYTES + b"\nlast line\n \n")
    assert output.text.startswith("x" * HEAD_BYTES + "\n[… 40013 bytes left out")
    assert output.text.endswith("y\nlast line\n \n")
    assert output.last_line == "last line"
    assert len(output.text) < HEAD_BYTES + TAIL_BYTES + 200


def test_known_secrets_are_not_shown() -> None:
    settings = load_settings(
        openai_api_key=SECRET,
        jwt_secret="j" * 40,
        database_url="postgresql://u:p%2Fssword@h/d",
        redis_url="redis://:redispass@h",
    )
    output = Output(secrets_of(settings))
    for part in (b"a sk-123", b"45678 b " + b"j" * 40 + b" p/ssword p%2Fssword redispass"):
        output.add(part)
    assert output.last_line == output.text
    assert output.text == "a *** b *** *** *** ***"
