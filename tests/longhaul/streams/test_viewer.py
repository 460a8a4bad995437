"""What a client has seen of a turn, as far as it decides what it is sent from rows."""

from typing import Any

from longhaul.streams.events import data_part, encode
from longhaul.streams.step_writer import StepWriter
from longhaul.streams.viewer import ViewerState


class Client:
    """Notes what a writer puts into the stream."""

    def __init__(self) -> None:
        self.state = ViewerState()

    def put(self, part: dict[str, Any]) -> None:
        self.state.note_json(encode(part))


def test_a_round_is_done_when_its_step_has_ended() -> None:
    client = Client()
    writer = StepWriter(client.put, 1, 1)
    writer.begin()
    writer.text("hello")
    assert client.state.rounds_done == set()
    writer.end(keep_open=False)
    assert client.state.rounds_done == {1}


def test_a_try_that_said_nothing_is_no_round() -> None:
    """The model was away: the round's text is still to come, if not from Redis then from rows."""
    client = Client()
    writer = StepWriter(client.put, 1, 1)
    writer.begin()
    writer.take_back()
    assert client.state.rounds_done == set()


def test_a_try_that_was_taken_back_is_no_round() -> None:
    client = Client()
    writer = StepWriter(client.put, 1, 1)
    writer.begin()
    writer.text("hel")
    writer.take_back()
    assert client.state.rounds_done == set()
    assert client.state.unfinished == []


def test_what_we_say_ourselves_is_no_round_either() -> None:
    state = ViewerState()
    for part in ({"type": "start-step"}, data_part("progress", {"round": 1}), {"type": "finish-step"}):
        state.note_and_encode(part)
    assert state.rounds_done == set()
