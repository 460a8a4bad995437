"""What a command in the sandbox cannot see, take or leave behind."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from longhaul.files.workspace import Workspace, WorkspaceError
from longhaul.sandbox.sandbox import Limits, Sandbox, SandboxError
from testkit.servers import ROOT
from testkit.wait import until
from tests.longhaul.sandbox.conftest import LIMITS, Run, processes_with

pytestmark = pytest.mark.integration  # it starts processes

#: Forks until it may not, and says how often it could.
FORK_BOMB = """
import os, time
made = 0
try:
    while made < 500:
        if os.fork() == 0:
            time.sleep(600)
        made += 1
except BlockingIOError:
    pass
print("made", made, flush=True)
"""
EATER = "import time; x = bytearray(100 << 20); time.sleep(600)"


async def test_a_command_works_in_the_workspace(run: Run, tmp_path: Path) -> None:
    ended, said = await run("echo hello > f; cat f; pwd; exit 3")
    assert (ended.exit_code, ended.exceeded) == (3, "")
    assert said == "hello\n/workspace\n"
    assert (tmp_path / "workspace" / "f").read_text() == "hello\n"
    assert await run("cat; echo err >&2", stdin=b"given ") == (ended.__class__(0), "given err\n")
    (tmp_path / "workspace" / "ours").write_text("from outside")
    assert (await run("cat ours; rm ours; mkdir -p a/b; echo x > a/b/c"))[1] == "from outside"
    assert Workspace(tmp_path / "workspace").read("a/b/c", 10) == b"x\n"


async def test_the_worker_s_environment_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    _, said = await run("env; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/*/cmdline")
    assert "PATH=" in said
    assert "sk-very-secret" not in said
    assert "OPENAI" not in said


async def test_files_of_the_host_and_of_other_sessions_are_not_there(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other" / "secret.txt"
    other.parent.mkdir()
    other.write_text("another session's words")
    other.parent.chmod(0o755)
    _, said = await run(
        f"cat {other} ../other/secret.txt /etc/passwd /etc/shadow; ls /home /root /mnt /sys /var; ls {ROOT}; ls /; "
        "touch /usr/x /etc/x /x /dev/x && echo written"
    )
    assert "another session's words" not in said
    assert "root:" not in said
    assert "written" not in said
    shown = said.splitlines()
    assert {"bin", "workspace", "usr"} <= set(shown)
    assert not {"home", "root", "mnt", "sys", "var"} & set(shown)


async def test_processes_of_the_host_are_not_there(run: Run) -> None:
    _, said = await run("ls -d /proc/[0-9]* | wc -l; kill -9 1; kill -9 -1; echo alive")
    assert int(said.splitlines()[0]) < 10
    assert os.getpid() > 10


async def test_no_more_rights_are_to_be_had(run: Run) -> None:
    _, said = await run(
        "grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; unshare -Ur true && echo nested; "
        "mount -t tmpfs x /tmp && echo mounted; exit 0"
    )
    assert "CapEff:\t0000000000000000" in said
    assert "CapBnd:\t0000000000000000" in said
    assert "NoNewPrivs:\t1" in said
    assert "nested" not in said
    assert "mounted" not in said


@pytest.mark.parametrize("network", [False, True])
async def test_the_network_is_there_if_it_is_allowed(run: Run, *, network: bool) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        ended, _ = await run(f"exec 3<>/dev/tcp/127.0.0.1/{port}", network=network)
    assert (ended.exit_code == 0) is network


async def test_a_fork_bomb(run: Run) -> None:
    ended, said = await run("python3 -", stdin=FORK_BOMB.encode())
    assert ended.exit_code == 0, said
    assert 10 < int(said.split()[1]) <= LIMITS.processes


async def test_memory_is_counted_over_all_processes(run: Run) -> None:
    ended, _ = await run(f"for n in 1 2 3 4 5 6; do python3 -c '{EATER}' & done; wait")
    assert ended.exceeded == f"the limit of memory ({LIMITS.memory_bytes} bytes)"
    ended, said = await run("python3 -c 'x = bytearray(8 << 30)'")
    assert "MemoryError" in said


async def test_a_disk_is_not_filled(run: Run, tmp_path: Path) -> None:
    ended, _ = await run("for n in $(seq 50); do head -c 1000000 /dev/zero > f$n; done; sleep 600")
    assert ended.exceeded == f"the limit of the workspace ({LIMITS.disk_bytes} bytes)"
    ended, _ = await run("rm f*; ls | wc -l")
    assert ended.exit_code == 0, "who begins with a full workspace may remove files"
    ended, said = await run("head -c 100000000 /dev/zero > large; ls -l large")
    assert (tmp_path / "workspace" / "large").stat().st_size <= LIMITS.disk_bytes + 1024
    ended, said = await run(
        "for place in /tmp /dev/shm; do for n in $(seq 100); do head -c 5000000 /dev/zero > $place/f$n; done; done "
        "2>/dev/null; du -sm /tmp /dev/shm | cut -f1"
    )
    assert all(int(megabytes) <= 70 for megabytes in said.split()), said


async def test_what_takes_too_long_is_ended(run: Run) -> None:
    marker = f"{os.getpid()}.1010101"
    ended, said = await run(f"echo begun; sleep 600{marker} & setsid sleep 600{marker}", seconds=6)
    assert (ended.exit_code, ended.exceeded, said) == (None, "its time of 6 s", "begun\n")
    await until(lambda: not processes_with(marker), what="the end of all processes")


async def test_what_a_command_leaves_behind_is_ended(run: Run) -> None:
    marker = f"{os.getpid()}.2020202"
    ended, _ = await run(f"setsid nohup sleep 600{marker} & disown; echo left")
    assert ended.exit_code == 0
    await until(lambda: not processes_with(marker), what="the end of all processes")


async def test_stop_ends_the_whole_tree(run: Run, tmp_path: Path) -> None:
    marker = f"{os.getpid()}.3030303"
    running = asyncio.ensure_future(run(f"for n in 1 2 3; do setsid sleep 600{marker} & done; touch begun; wait"))
    await until(lambda: running.done() or (tmp_path / "workspace" / "begun").exists(), what="its begin")
    if running.done():
        await running  # no sandbox here
    assert processes_with(marker)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: not processes_with(marker), what="the end of all processes")


WORKER = """
import asyncio, sys
from pathlib import Path
from longhaul.sandbox.sandbox import Limits, Sandbox
sandbox = Sandbox("bwrap", Limits(0, 0, 0))
program = ["/bin/bash", "-c", f"sleep 600{sys.argv[2]} & touch begun; wait"]
asyncio.run(sandbox.run(Path(sys.argv[1]), program, print, seconds=600))
"""


async def test_a_killed_worker_takes_its_commands_along(run: Run, tmp_path: Path) -> None:
    await run("true")
    marker, workspace = f"{os.getpid()}.4040404", tmp_path / "of the worker"
    worker = subprocess.Popen(  # noqa: ASYNC220  # it is only started
        [sys.executable, "-c", WORKER, str(workspace), marker], cwd=ROOT
    )
    try:
        await until(lambda: (workspace / "begun").exists(), what="the command's begin")
        assert processes_with(marker)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    await until(lambda: not processes_with(marker), what="the end of all processes")


async def test_a_link_made_inside_leads_nowhere_outside(run: Run, tmp_path: Path) -> None:
    await run("ln -s /etc/passwd file; ln -s / folder; ln -s ../other up; mkfifo pipe")
    workspace = Workspace(tmp_path / "workspace")
    for path in ("file", "folder/etc/passwd", "up", "pipe"):
        with pytest.raises(WorkspaceError):
            workspace.read(path, 1_000)


@pytest.mark.parametrize("program", ["/nowhere/bwrap", "/bin/false"])
async def test_without_a_sandbox_nothing_runs(tmp_path: Path, program: str) -> None:
    sandbox = Sandbox(program, Limits(0, 0, 0))
    with pytest.raises(SandboxError, match=r"needs a sandbox, and .* apt-get install bubblewrap.*LONGHAUL_SHELL=off"):
        await sandbox.run(tmp_path, ["/bin/touch", str(tmp_path / "run")], print, seconds=60)
    assert list(tmp_path.glob("*")) == []  # noqa: ASYNC240
