"""What the processes below one, and the files in a folder, take together. Read from Linux's /proc."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Of a process and all below it. `memory_bytes` counts pages that processes share once for each."""

    processes: int
    memory_bytes: int


class DiskUsage(NamedTuple):
    """Of a folder and all below it."""

    files: int
    bytes: int


def usage_below(pid: int) -> Usage:
    """What a process and those below it use now; those that have just ended are left out."""
    processes = pages = 0
    waiting = [pid]
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        with contextlib.suppress(OSError, IndexError):
            pages += int((folder / "statm").read_text().split()[1])
            processes += 1
            for task in os.listdir(folder / "task"):  # noqa: PTH208  # names, not paths
                with contextlib.suppress(OSError):
                    waiting += map(int, (folder / "task" / task / "children").read_text().split())
    return Usage(processes, pages * PAGE_BYTES)


def bytes_of(root: Path) -> DiskUsage:
    """What all files take; links are counted themselves, not followed."""
    files = size = 0
    for folder, folders, names in os.walk(root):
        files += len(folders) + len(names)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += Path(folder, name).lstat().st_size
    return DiskUsage(files, size)
