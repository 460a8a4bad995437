"""Journals of workers: which are of the dead, what is in them, and a worker that cannot write its own."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from activities import journal
from activities.journal import DeadJournal, Journal, Journals, Run

pytestmark = pytest.mark.integration  # it starts processes

RUN, OTHER = Run(workflow_id="turn:a", run_id="1"), Run(workflow_id="turn:b", run_id="2")
WORKER = """
import sys, time
from pathlib import Path
from activities.journal import Journals, Run
with Journals.of(Path(sys.argv[1]), "here").own("worker.1@host") as journal:
    journal.note(Run(workflow_id="turn:a", run_id="1"))
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    return Journals.of(tmp_path / "journals", "here")


def left_by(journals: Journals) -> dict[str, tuple[set[Run], int]]:
    """What the dead have left, by identity; it is removed."""
    found = {}
    for dead in journals.of_the_dead():
        found[dead.identity] = dead.read()
        dead.remove()
        dead.close()
    return found


def dies(own: Journal) -> None:
    """What `kill -9` does to a journal: the kernel closes the file."""
    assert own._file is not None
    os.close(own._file)
    own._file = None


def test_of_a_killed_process(journals: Journals) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(journals.folder)], stdout=subprocess.PIPE)
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        assert journals.of_the_dead() == []
        [file] = journals.folder.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        worker.send_signal(signal.SIGSTOP)  # a hung process lives
        assert journals.of_the_dead() == []
    finally:
        worker.kill()
        worker.wait()
        if worker.stdout is not None:
            worker.stdout.close()
    dead = journals.of_the_dead()
    assert [one.identity for one in dead] == ["worker.1@host"]
    assert dead[0].read() == ({RUN}, 0)
    assert journals.of_the_dead() == [], "another worker reports it while this one does"
    dead[0].close()
    assert len(left_by(journals)) == 1, "nothing was reported yet"
    assert list(journals.folder.iterdir()) == []


def test_after_a_clean_end_nothing_is_left(journals: Journals) -> None:
    with journals.own("w") as own:
        own.note(RUN)
    assert list(journals.folder.iterdir()) == []


def test_a_worker_that_fails_leaves_its_journal(journals: Journals) -> None:
    def fail() -> None:
        with journals.own("w") as own:
            own.note(RUN)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert left_by(journals) == {"w": ({RUN}, 0)}


async def test_an_activity_stays_until_its_end_is_reported(journals: Journals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places are used again, so the file does not grow."""
    monkeypatch.setattr(journal, "REPORTED_AFTER_S", 0)
    own = journals.own("w").__enter__()
    kept = own.note(OTHER)
    for _ in range(5):
        with own.noting(RUN):
            pass
        assert RUN.run_id.encode() in (own.folder / own.name).read_bytes()
        await asyncio.sleep(0)  # the loop's next round clears it
        await asyncio.sleep(0)
    assert (own.folder / own.name).stat().st_size == 2 * journal.PLACE_BYTES
    dies(own)
    assert left_by(journals) == {"w": ({OTHER}, 0)}
    assert kept == 0


@pytest.mark.parametrize(
    "garbage", [b"{", b"\xff\xfe\n", b'{"workflow_id": 1}\n', b"\0" * 2000 + b"x", os.urandom(3000)]
)
def test_entries_that_cannot_be_read_are_counted(journals: Journals, garbage: bytes) -> None:
    own = journals.own("w").__enter__()
    own.note(RUN)
    dies(own)
    with (own.folder / own.name).open("ab") as file:
        file.write(garbage)
    [(runs, unreadable)] = left_by(journals).values()
    assert runs == {RUN}
    assert unreadable >= 1


def test_others_are_left_alone(journals: Journals) -> None:
    """Workers of another host or another Temporal, in the same folder: their locks or runs mean nothing here."""
    elsewhere = Journals.of(journals.folder, "elsewhere")
    own = elsewhere.own("w").__enter__()
    own.note(RUN)
    dies(own)
    assert left_by(journals) == {}
    journals.remove_old()
    two_days_ago = time.time() - 2 * 86_400
    assert len(list(journals.folder.iterdir())) == 1
    os.utime(own.folder / own.name, (two_days_ago, two_days_ago))
    elsewhere.remove_old()
    assert len(list(journals.folder.iterdir())) == 1
    journals.remove_old()
    assert list(journals.folder.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with Journals.of(tmp_path / "file" / "journals", "here").own("w") as own:
        own.clear(own.note(RUN))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "LONGHAUL_HOME" in caplog.text


def test_a_full_disk(journals: Journals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One warning; what is written once there is space again counts."""
    own = journals.own("w").__enter__()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        own.note(OTHER)
        own.note(OTHER)
    own.note(RUN)
    assert len(caplog.records) == 1
    dies(own)
    assert left_by(journals) == {"w": ({RUN}, 0)}


def test_two_workers_find_the_same_journal(journals: Journals) -> None:
    """The one that comes later finds it gone, whether it has opened the file already or not."""
    own = journals.own("w").__enter__()
    own.note(RUN)
    dies(own)
    late = DeadJournal(own.folder / own.name, os.open(own.folder / own.name, os.O_RDWR))
    assert len(left_by(journals)) == 1
    late.remove()
    late.close()
    assert left_by(journals) == {}
