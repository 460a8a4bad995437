"""How busy this process is: what comes in small pieces is gathered for longer under load, which costs less CPU."""

import time
from collections.abc import Callable

#: A process that uses less than the one share of a core is idle, with more than the other it is busy.
IDLE_SHARE, BUSY_SHARE = 0.1, 0.5
#: Over so long the share is measured.
WINDOW_S = 0.25
#: A busy process gathers for so many times as long as an idle one.
MOST_STRETCH = 4.0


class ProcessLoad:
    """The CPU share of this process, as the factor by which it gathers longer. Streams of a process share one."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu_time: Callable[[], float] = time.process_time
    ) -> None:
        self._clock = clock
        self._cpu_time = cpu_time
        self._measured_at, self._used = clock(), cpu_time()
        self._stretch = 1.0

    def stretch(self) -> float:
        """1 in an idle process, `MOST_STRETCH` in a busy one, between them in proportion."""
        now = self._clock()
        if now - self._measured_at >= WINDOW_S:
            used = self._cpu_time()
            share = (used - self._used) / (now - self._measured_at)
            above = (share - IDLE_SHARE) / (BUSY_SHARE - IDLE_SHARE)
            self._stretch = 1.0 + (MOST_STRETCH - 1.0) * min(1.0, max(0.0, above))
            self._measured_at, self._used = now, used
        return self._stretch
