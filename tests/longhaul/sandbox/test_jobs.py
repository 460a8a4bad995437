"""Commands in the background: any worker answers for them, and they end when they should."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from longhaul.sandbox import jobs as module
from longhaul.sandbox.jobs import Job, JobError, Jobs, JobStatus
from longhaul.sandbox.sandbox import Sandbox
from testkit.wait import until
from tests.longhaul.sandbox.conftest import LIMITS, processes_with, refusal

pytestmark = pytest.mark.integration  # it starts processes


def jobs_of(tmp_path: Path, **more: float) -> Jobs:
    options = {"max_seconds": 600.0, "max_running": 2, **more}
    return Jobs(Sandbox("bwrap", LIMITS), tmp_path / ".jobs", **options)  # type: ignore[arg-type]


@pytest.fixture
async def jobs(possible: bool, tmp_path: Path) -> AsyncIterator[Jobs]:
    found = jobs_of(tmp_path)
    if not possible:
        await refusal(start(found, tmp_path, "true"))
    yield found
    await found.close()


async def start(jobs: Jobs, tmp_path: Path, command: str) -> Job:
    return await jobs.start("root", tmp_path / "root", command, ["/bin/bash", "-c", command], b"")


async def until_ended(jobs: Jobs, job_id: str) -> Job:
    async def ended() -> Job | None:
        job = await jobs.state("root", job_id)
        return None if job.status is JobStatus.RUNNING else job

    return await until(ended, what="the end of the job")


async def test_its_output_is_read_while_it_runs_and_later(jobs: Jobs, tmp_path: Path) -> None:
    job = await start(jobs, tmp_path, "echo one; while [ ! -e go ]; do sleep 0.1; done; echo two; exit 4")
    elsewhere = jobs_of(tmp_path)  # as another worker

    async def said() -> bool:
        return await elsewhere.output("root", job.id, 0) == ("one\n", 4)

    await until(said, what="the first output")
    assert (await elsewhere.state("root", job.id)).status is JobStatus.RUNNING
    (tmp_path / "root" / "go").touch()
    ended = await until_ended(elsewhere, job.id)
    assert (ended.status, ended.exit_code) == (JobStatus.ENDED, 4)
    assert await elsewhere.output("root", job.id, 4) == ("two\n", 8)
    assert list((tmp_path / "root").iterdir()) == [tmp_path / "root" / "go"], "a session sees nothing of it"


async def test_another_worker_ends_it(jobs: Jobs, tmp_path: Path) -> None:
    marker = f"{os.getpid()}.5050505"
    job = await start(jobs, tmp_path, f"setsid sleep 600{marker} & wait")
    await until(lambda: processes_with(marker), what="the command's begin")
    killed = await jobs_of(tmp_path).kill("root", job.id, patience_s=60)
    assert (killed.status, killed.exit_code) == (JobStatus.KILLED, None)
    await until(lambda: not processes_with(marker), what="the end of all processes")
    assert await jobs_of(tmp_path).kill("root", job.id) == killed


async def test_no_more_than_some_run_and_each_has_its_time(jobs: Jobs, tmp_path: Path) -> None:
    first, _ = [await start(jobs, tmp_path, "sleep 600") for _ in range(2)]
    with pytest.raises(JobError, match="2 commands run in the background already"):
        await start(jobs, tmp_path, "true")
    assert (await jobs.kill("root", first.id, patience_s=60)).status is JobStatus.KILLED
    short = await start(jobs_of(tmp_path, max_seconds=1.0), tmp_path, "sleep 600")
    ended = await until_ended(jobs, short.id)
    assert (ended.status, ended.reason) == (JobStatus.KILLED, "its time of 1 s")


async def test_a_worker_that_stops_ends_its_commands_and_says_so(jobs: Jobs, tmp_path: Path) -> None:
    marker = f"{os.getpid()}.6060606"
    job = await start(jobs, tmp_path, f"sleep 600{marker}")
    await until(lambda: processes_with(marker), what="the command's begin")
    await jobs.close()
    left = await jobs_of(tmp_path).state("root", job.id)
    assert (left.status, left.reason) == (JobStatus.LOST, "its worker was stopped")
    await until(lambda: not processes_with(marker), what="the end of all processes")


async def test_a_worker_that_stops_at_once_leaves_nothing(jobs: Jobs, tmp_path: Path) -> None:
    """The sandbox is stopped at any moment of its start."""
    marker = f"{os.getpid()}.6161616"
    for number in range(12):
        await start(jobs, tmp_path, f"sleep 600{marker}")
        if number:
            await until(lambda: processes_with(marker), what="the command's begin", every=0.001 * number)
        await jobs.close()
    await until(lambda: not processes_with(marker), what="the end of all processes")


async def test_a_deleted_session_ends_its_commands(jobs: Jobs, tmp_path: Path) -> None:
    marker = f"{os.getpid()}.7070707"
    await start(jobs, tmp_path, f"sleep 600{marker}")
    await until(lambda: processes_with(marker), what="the command's begin")
    shutil.rmtree(tmp_path / ".jobs" / "root")
    await until(lambda: not processes_with(marker), what="the end of all processes")


async def test_output_is_cut_at_a_limit(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTPUT_MAX_BYTES", 10)
    job = await start(jobs, tmp_path, "seq 100000")
    assert (await until_ended(jobs, job.id)).exit_code == 0
    assert await jobs.output("root", job.id, 0) == ("1\n2\n3\n4\n5\n", 10)


async def test_a_job_that_nobody_touches_is_lost(tmp_path: Path) -> None:
    place = tmp_path / ".jobs" / "root" / "abc"
    place.mkdir(parents=True)
    module._write(place, Job(id="abc", command="x", started_at=0))
    jobs = jobs_of(tmp_path)
    assert (await jobs.state("root", "abc")).status is JobStatus.RUNNING
    os.utime(place / "state.json", (0, 0))
    assert (await jobs.state("root", "abc")).reason == "its worker died"


@pytest.mark.parametrize("job_id", ["nothing", "", "..", "../other/abc", "a/b", "a\x00"])
async def test_ids_that_name_none(tmp_path: Path, job_id: str) -> None:
    place = tmp_path / ".jobs" / "other" / "abc"
    place.mkdir(parents=True)
    module._write(place, Job(id="abc", command="x", started_at=0))
    jobs = jobs_of(tmp_path)
    for asked in (jobs.state("root", job_id), jobs.kill("root", job_id)):
        with pytest.raises(JobError, match="There is no command"):
            await asked
