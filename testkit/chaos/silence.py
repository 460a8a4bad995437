"""How long a viewer's stream stands still when a worker is killed."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from testkit.streamlog import StreamLog


class Kill(NamedTuple):
    """`kill -9` of a worker: when (monotonic seconds), and the sessions that it worked for, as far as is known."""

    at: float
    sessions: frozenset[str]


def silences(kills: Sequence[Kill], streams: Iterable[tuple[str, StreamLog]]) -> list[float]:
    """Of each stream that a killed worker worked for: the longest silence from the kill to the next kill, in seconds.

    A silence begins with the last part before it, so one that had begun before the kill counts in full.
    """
    found = []
    times = {id(log): (session, [log.began, *(event.at for event in log.events)]) for session, log in streams}
    for number, kill in enumerate(kills):
        until = kills[number + 1].at if number + 1 < len(kills) else float("inf")
        for session, parts in times.values():
            if session in kill.sessions and parts[0] <= kill.at < parts[-1]:
                gaps = pairwise(parts)
                found.append(max(to - from_ for from_, to in gaps if to > kill.at and from_ < until))
    return found
