"""State file, lock of the home, logs."""

import os
from pathlib import Path

import pytest

from cli import CommandError
from cli.stack.process import rotate, tail
from cli.stack.state import StackState, claim_home, read_state, running_supervisor, write_state


def test_state_survives_the_file(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    state = StackState(status="ready", ports={"api": 8700}, versions={"redis": "7"})
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(CommandError, match=r"state\.json is not readable.*delete it"):
        read_state(tmp_path)


def test_only_one_supervisor_of_a_home(tmp_path: Path) -> None:
    assert running_supervisor(tmp_path) is None
    first = claim_home(tmp_path)
    assert first is not None
    assert claim_home(tmp_path) is None
    assert running_supervisor(tmp_path) == os.getpid()
    os.close(first)  # as the end of the process does
    assert running_supervisor(tmp_path) is None
    again = claim_home(tmp_path)
    assert again is not None
    os.close(again)


def test_a_home_that_cannot_be_made_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="set LONGHAUL_HOME"):
        claim_home(tmp_path / "file" / "home")


def test_logs_rotate_by_size(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    rotate(log, limit=10)
    for number in range(5):
        log.write_text(f"{number}" * 20, encoding="utf-8")
        rotate(log, limit=10, keep=3)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["api.log.1", "api.log.2", "api.log.3"]
    assert (tmp_path / "api.log.1").read_text(encoding="utf-8") == "4" * 20
    log.write_text("short", encoding="utf-8")
    rotate(log, limit=10)
    assert log.exists()


def test_tail(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert tail(log, 3) == ""
    log.write_text("\n".join(str(number) for number in range(100_000)), encoding="utf-8")
    assert tail(log, 2) == "99998\n99999"
