"""The silence of a stream after a kill."""

from testkit.chaos.silence import Kill, silences
from testkit.streamlog import StreamEvent, StreamLog


def stream(*times: float) -> StreamLog:
    return StreamLog(events=[StreamEvent(None, {"type": "text-delta"}, at) for at in times[1:]], began=times[0])


def test_the_longest_until_the_next_kill() -> None:
    kills = [Kill(10, frozenset("a")), Kill(20, frozenset("a"))]
    assert silences(kills, [("a", stream(9, 9.5, 12, 17, 18, 30, 31))]) == [12, 12]
    assert silences(kills, [("a", stream(9, 9.5, 12, 17, 21, 22))]) == [5, 4]


def test_streams_that_did_not_run_or_had_another_worker() -> None:
    kills = [Kill(10, frozenset("a"))]
    assert silences(kills, [("b", stream(9, 30))]) == []
    assert silences(kills, [("a", stream(1, 9)), ("a", stream(11, 30))]) == []


def test_a_stream_without_parts_before_the_kill_counts() -> None:
    assert silences([Kill(10, frozenset("a"))], [("a", stream(9, 12))]) == [3]
