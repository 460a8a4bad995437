"""Ports of the embedded stack: the preferred ones where they are free, else the next free ones."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cli import CommandError

LOOPBACK = "127.0.0.1"
PREFERRED: Mapping[str, int] = {"api": 8700, "temporal": 7233, "temporal_ui": 8233, "redis": 6379, "model": 8701}
_STEPS = 500


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether nothing listens on this port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection's TIME_WAIT is no obstacle
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class PortClaims:
    """Ports that one process holds, by a lock file for each.

    After one copy has seen that a port is free and before its server listens there, another copy could see it free too.
    The lock closes that gap, and ends with the process that holds it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"longhaul-ports-{os.getuid()}"
        self._held: dict[int, int] = {}

    def take(self, preferred: int, *, host: str = LOOPBACK, avoid: frozenset[int] = frozenset()) -> int:
        """The preferred port, or the first free one after it that is not in `avoid`."""
        for port in range(preferred, min(preferred + _STEPS, 65536)):
            wanted = port == preferred or port not in avoid
            if wanted and port not in self._held and is_free(port, host) and self._lock(port):
                return port
        raise CommandError(f"no free port from {preferred} on; stop what listens there")

    def _lock(self, port: int) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self._folder / f"{port}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._held[port] = handle
        return True

    def release(self) -> None:
        """Give all ports back."""
        for handle in self._held.values():
            os.close(handle)
        self._held.clear()
