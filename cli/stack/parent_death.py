"""Kill the processes that a parent started as soon as the parent ends, even by SIGKILL.

The parent starts one watcher process and keeps the writing end of a pipe to it. Each command puts its process group on
the watcher's list before it begins. The kernel closes the pipe when the parent ends; the watcher then kills every group
on the list: hung processes and children of children too, on every Unix.

No process escapes when the parent dies at a bad moment: a command holds the pipe open until it is on the list.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence


class ParentDeathWatcher:
    """Held by the parent. One watcher serves any number of commands."""

    def __init__(self) -> None:
        reading, self.pipe = os.pipe()
        self._process = subprocess.Popen(_this_file(), stdin=reading, env={}, start_new_session=True)
        os.close(reading)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that registers itself, then becomes `argv`.

        Start it with `pass_fds=(watcher.pipe,)` and `start_new_session=True`.
        """
        return _this_file(str(self.pipe), *argv)

    def forget(self, group: int) -> None:
        """Take a group off the list once it has ended: another process may get the same number."""
        os.write(self.pipe, b"-%d\n" % group)

    def close(self) -> None:
        """Kill every group that is still on the list, and wait for the watcher to end. A second call does nothing."""
        if self._process.returncode is None:
            os.close(self.pipe)
            self._process.wait()


def register(pipe: int) -> None:
    """Put this process's group on the watcher's list. This process must lead a group of its own."""
    os.write(pipe, b"+%d\n" % os.getpid())  # short writes to a pipe are atomic: lines of two processes never mix


def _this_file(*arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", __file__, *arguments]  # without site-packages it starts in milliseconds


def _main(arguments: list[str]) -> None:
    if arguments:
        pipe, command = int(arguments[0]), arguments[1:]
        register(pipe)
        os.set_inheritable(pipe, False)  # noqa: FBT003  # `exec` closes it
        os.execvp(command[0], command)  # noqa: S606  # the command comes from the parent
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        groups.add(group) if line[0] == "+" else groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    _main(sys.argv[1:])
