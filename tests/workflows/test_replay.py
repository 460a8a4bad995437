"""Turns that began on older code go on with today's: every recorded history replays, without a difference."""

import asyncio
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from longhaul.payloads import data_converter
from tests.workflows.kinds import KINDS
from tests.workflows.record import FOLDER
from worker import workflow_options
from workflows.turn import TurnLoop

FILES = sorted(FOLDER.glob("*.json"))


def kind_of(file: Path) -> str:
    """The longest name of a kind that the file's begins with."""
    return max((name for name in KINDS if file.name.startswith(name)), key=len)


async def replay(file: Path) -> None:
    """Run today's workflow code over a history.

    Raises:
        Exception: it would have done something else.
    """
    replayer = Replayer(data_converter=data_converter(), **workflow_options())
    await replayer.replay_workflow(
        WorkflowHistory.from_json(workflow_id(file), await asyncio.to_thread(file.read_text))
    )


def workflow_id(file: Path) -> str:
    return f"replay:{file.stem}"


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
async def test_recorded(file: Path) -> None:
    await replay(file)


def test_every_kind_is_recorded() -> None:
    assert {kind_of(file) for file in FILES} == set(KINDS)


@pytest.mark.parametrize("name", list(KINDS))
def test_recorded_what_it_says(name: str) -> None:
    """The first run of each kind ends as its kind does."""
    firsts = [file for file in FILES if kind_of(file) == name and "_child_" not in file.name]
    files = [file for file in firsts if KINDS[name].runs == 1 or file.name.startswith(f"{name}_1.")]
    for file in files:
        last = WorkflowHistory.from_json(workflow_id(file), file.read_text()).events[-1]
        assert last.event_type == KINDS[name].ends
    assert files


async def changed(loop: TurnLoop) -> None:
    """A change as somebody might make it: a timer before the work that older histories do not have."""
    await workflow.sleep(1)
    await work(loop)


work = TurnLoop._work


async def test_a_changed_order_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that the tests above can fail."""
    monkeypatch.setattr(TurnLoop, "_work", changed)
    [file] = [file for file in FILES if kind_of(file) == "tools"][:1]
    with pytest.raises(Exception, match=r"(?i)nondeterminism"):
        await replay(file)
