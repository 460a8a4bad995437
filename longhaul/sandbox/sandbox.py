"""Runs a command in a sandbox of bubblewrap: it sees the system's programs and one folder, and nothing else.

It has no network unless that is allowed, no environment, none of the host's processes, no capabilities, and limits on
memory, processes, time and disk. It ends with all that it has started when the call ends, is stopped, or its worker
dies.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from longhaul.sandbox.usage import bytes_of, usage_below

#: The user that a worker which runs as root becomes for a command: limits on processes do not hold for root.
UNPRIVILEGED = 65534
#: What a command may write beside its workspace, into /tmp and /dev/shm; it counts as memory.
TEMPORARY_BYTES = 64 << 20
#: Address space is reserved far more than it is used, by some programs.
ADDRESS_SPACE_FACTOR = 4
OPEN_FILES = 1024
#: Seconds between looks at what a command uses, and at the disk.
LOOK_S, LOOK_AT_DISK_S = 0.1, 1.0
FILES_MAX = 200_000
CHUNK_BYTES = 1 << 16
ENDING_S = 10.0
REMEDY = (
    "Install bubblewrap (Debian, Ubuntu: apt-get install bubblewrap) and allow user namespaces "
    "(sysctl user.max_user_namespaces > 0; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in Docker a "
    "seccomp profile that allows them), or turn the shell off: LONGHAUL_SHELL=off."
)
#: Read-only, if they are there: names of programs, where libraries are.
SYSTEM_FILES = ("/etc/alternatives", "/etc/ld.so.cache")
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/ca-certificates")
#: As root: show the workspace at /mnt, for its own place may be one that only root can reach; then be nobody.
AS_ROOT = (
    'mount --bind "$1" /mnt && shift && '
    f'exec setpriv --reuid={UNPRIVILEGED} --regid={UNPRIVILEGED} --clear-groups --inh-caps=-all --no-new-privs "$@"'
)


class SandboxError(Exception):
    """No sandbox can be had; the text says why, and what to do."""


@dataclass(frozen=True)
class Limits:
    """What a command may use; 0: as much as it wants. `disk_bytes` is for its whole workspace."""

    memory_bytes: int
    processes: int
    disk_bytes: int


@dataclass(frozen=True)
class Ended:
    """How a command ended. `exceeded`: the limit for which it was ended; then it has no exit code."""

    exit_code: int | None
    exceeded: str = ""


class Sandbox:
    """Runs commands, each in a sandbox of its own."""

    def __init__(self, bubblewrap: str, limits: Limits, *, network: bool = False) -> None:
        self._bubblewrap = bubblewrap
        self._limits = limits
        self._network = network
        self._works = False

    async def check(self) -> None:
        """See once whether a sandbox can be had.

        Raises:
            SandboxError: it cannot.
        """
        if self._works:
            return
        if shutil.which(self._bubblewrap) is None:
            raise SandboxError(f"The shell needs a sandbox, and there is no {self._bubblewrap!r} here. {REMEDY}")
        said = bytearray()
        ended = await self._run(Path("/usr"), ["/bin/true"], said.extend, seconds=ENDING_S, owns=False)
        if ended.exit_code != 0:
            reason = said.decode("utf-8", "replace").strip() or ended.exceeded or f"exit code {ended.exit_code}"
            raise SandboxError(f"The shell needs a sandbox, and none can be had here: {reason}. {REMEDY}")
        self._works = True

    async def run(
        self,
        workspace: Path,
        program: Sequence[str],
        output: Callable[[bytes], object],
        *,
        seconds: float,
        stdin: bytes = b"",
    ) -> Ended:
        """Run a program with the workspace as its current folder; `output` gets what it says, as it says it.

        Cancelling ends it, with all that it has started.

        Raises:
            SandboxError: no sandbox can be had.
        """
        await self.check()
        place = await asyncio.to_thread(_prepared, workspace)
        return await self._run(place, program, output, seconds=seconds, stdin=stdin)

    async def _run(
        self,
        workspace: Path,
        program: Sequence[str],
        output: Callable[[bytes], object],
        *,
        seconds: float,
        stdin: bytes = b"",
        owns: bool = True,
    ) -> Ended:
        async with self._process(self._command(workspace, program)) as process:
            said = asyncio.create_task(_converse(process, stdin, output))
            watched = asyncio.create_task(self._watch(process.pid, workspace if owns else None))
            try:
                await asyncio.wait({said, watched}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if said.done():
                    await said
                    return Ended(await process.wait())
                exceeded = watched.result() if watched.done() else f"its time of {seconds:g} s"
                _kill(process)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(said, ENDING_S)
                return Ended(None, exceeded)
            finally:
                for task in (said, watched):
                    task.cancel()
                await asyncio.gather(said, watched, return_exceptions=True)

    @asynccontextmanager
    async def _process(self, command: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
        """A process that is gone when the block ends.

        It gets no environment. Bubblewrap is the first process inside, where /proc shows the environment of each.
        """
        start = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={},
                cwd="/",
                start_new_session=True,
            )
        )
        try:
            # A start that is cancelled half-way kills bubblewrap alone, and its child may wait for it for ever.
            await asyncio.shield(start)
            yield start.result()
        finally:
            process = await start
            _kill(process)
            await asyncio.shield(process.wait())

    def _command(self, workspace: Path, program: Sequence[str]) -> list[str]:
        as_root = os.geteuid() == 0
        shown = "/mnt" if as_root else str(workspace)
        sandbox = [
            *(
                shutil.which(self._bubblewrap) or self._bubblewrap,
                "--unshare-all",
                "--unshare-user",
                "--disable-userns",
            ),
            *(("--share-net",) if self._network else ()),
            *("--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv", "--hostname", "sandbox"),
            *("--uid", "1000", "--gid", "1000", "--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin"),
            *("--setenv", "HOME", "/workspace", "--setenv", "LANG", "C.UTF-8", "--setenv", "TERM", "dumb"),
            *("--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/sbin", "/sbin"),
            *("--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"),
            *(
                argument
                for path in (*SYSTEM_FILES, *(NETWORK_FILES if self._network else ()))
                for argument in ("--ro-bind-try", path, path)
            ),
            *("--proc", "/proc", "--dev", "/dev"),
            *("--size", str(TEMPORARY_BYTES), "--tmpfs", "/tmp"),  # noqa: S108  # inside
            *("--size", str(TEMPORARY_BYTES), "--tmpfs", "/dev/shm"),  # noqa: S108
            *(
                "--bind",
                shown,
                "/workspace",
                "--remount-ro",
                "/dev",
                "--remount-ro",
                "/",
                "--chdir",
                "/workspace",
                "--",
            ),
            *("/bin/bash", "-c", f'{self._ulimit()} exec nice "$@"', "bash", *program),
        ]
        if not as_root:
            return sandbox
        tools = [shutil.which(name) or name for name in ("unshare", "sh")]
        return [tools[0], "--mount", "--", tools[1], "-c", AS_ROOT, "sh", str(workspace), *sandbox]

    def _ulimit(self) -> str:
        """Limits that the kernel holds, for each process. They are set inside, where they count for this sandbox."""
        limits = self._limits
        kilobytes = limits.memory_bytes * ADDRESS_SPACE_FACTOR // 1024
        options = [
            *([f"-v {kilobytes}"] if limits.memory_bytes else []),
            *([f"-u {limits.processes}"] if limits.processes else []),
            *([f"-f {limits.disk_bytes // 1024 + 1}"] if limits.disk_bytes else []),
        ]
        return "".join(f"ulimit {option}; " for option in (*options, "-c 0", f"-n {OPEN_FILES}"))

    async def _watch(self, pid: int, workspace: Path | None) -> str:
        """Wait until the sandbox uses more than it may, and say of what. The kernel does not add processes up."""
        limits, looks = self._limits, 0
        at_start: int | None = None
        while True:
            used = usage_below(pid)
            if limits.memory_bytes and used.memory_bytes > limits.memory_bytes:
                return f"the limit of memory ({limits.memory_bytes} bytes)"
            if limits.processes and used.processes > limits.processes + 3:  # bubblewrap's own, and the root's
                return f"the limit of processes ({limits.processes})"
            if workspace is not None and looks % round(LOOK_AT_DISK_S / LOOK_S) == 0:
                disk = await asyncio.to_thread(bytes_of, workspace)
                at_start = disk.bytes if at_start is None else at_start
                # Who begins with a full workspace must be able to remove files.
                if limits.disk_bytes and disk.bytes > max(limits.disk_bytes, at_start):
                    return f"the limit of the workspace ({limits.disk_bytes} bytes)"
                if disk.files > FILES_MAX:
                    return f"the limit of files in the workspace ({FILES_MAX})"
            looks += 1
            await asyncio.sleep(LOOK_S)


async def _converse(process: asyncio.subprocess.Process, stdin: bytes, output: Callable[[bytes], object]) -> None:
    """Give the program its input and take its output until it has ended, and all that it has started."""
    assert process.stdin is not None  # noqa: S101  # both are pipes
    assert process.stdout is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ends without reading
        process.stdin.write(stdin)
        process.stdin.close()
    while chunk := await process.stdout.read(CHUNK_BYTES):
        output(chunk)


def _kill(process: asyncio.subprocess.Process) -> None:
    """End bubblewrap; the kernel then ends everything inside, because the first process there dies with it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _prepared(workspace: Path) -> Path:
    """Where the workspace is, once it exists; as root, all of it is given to the user that commands run as."""
    workspace.mkdir(parents=True, exist_ok=True)
    place = workspace.resolve()
    if os.geteuid() != 0:
        return place
    os.chown(workspace, UNPRIVILEGED, UNPRIVILEGED)
    # By handles, and without following links: a command that runs may put one in the way.
    for _, folders, names, handle in os.fwalk(workspace, follow_symlinks=False):
        for name in (*folders, *names):
            with contextlib.suppress(FileNotFoundError):
                os.chown(name, UNPRIVILEGED, UNPRIVILEGED, dir_fd=handle, follow_symlinks=False)
    return place
