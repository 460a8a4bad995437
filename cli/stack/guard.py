"""Run a command that dies with its parent: `guard.py PARENT_PID COMMAND…`.

A supervisor killed with SIGKILL cannot stop its children. On Linux the kernel can: PR_SET_PDEATHSIG survives `exec`.
It runs as a file of its own, so that nothing executes between fork and exec in the supervisor (a `preexec_fn` would,
in a process that has threads). Elsewhere the next `up` stops what an earlier one left behind.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Tie this process to its parent, then become the command."""
    parent, command = int(argv[0]), argv[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # the parent died before the tie was made
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606  # the command comes from our own supervisor


if __name__ == "__main__":
    main(sys.argv[1:])
