"""Run a command that dies with its parent: `guard.py PARENT_PID COMMAND…`.

Tests stop processes with SIGSTOP, and a stopped process does not see SIGTERM: hence SIGKILL, unlike the guard of the
product's own stack. It runs as a file of its own, because a `preexec_fn` is not safe in a process that has threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tie(parent: int) -> None:
    """Let the kernel kill this process when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before the tie was made
        sys.exit(1)


def main(argv: list[str]) -> None:
    """Tie this process to its parent, then become the command."""
    parent, command = int(argv[0]), argv[1:]
    tie(parent)
    os.execvp(command[0], command)  # noqa: S606  # the command comes from a test


if __name__ == "__main__":
    main(sys.argv[1:])
