"""A model that is down is left out for a while, tried by one call at a time, and asked again once it answers."""

from longhaul.llm.outages import Outages


class Watch:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_model_that_failed_is_left_out_until_one_call_may_try_it() -> None:
    watch = Watch()
    outages = Outages(60, watch)
    assert outages.to_ask(["a", "b", "c"]) == ["a", "b", "c"]
    outages.failed("a", "b")
    assert outages.to_ask(["a", "b", "c"]) == ["b", "c"]
    watch.now = 60
    assert outages.to_ask(["a", "b", "c"]) == ["a", "b", "c"]
    assert outages.is_down("a")
    assert outages.to_ask(["a", "b", "c"]) == ["b", "c"], "one call tries it, the others do not"
    watch.now = 120
    assert outages.to_ask(["a", "b"]) == ["a", "b"], "the call that tried it may have died"
    outages.answered("a")
    assert not outages.is_down("a")
    assert outages.to_ask(["a", "b"]) == outages.to_ask(["a", "b"]) == ["a", "b"]


def test_a_fallback_may_be_down_too() -> None:
    outages = Outages(60, Watch())
    outages.failed("b", "c")
    assert outages.to_ask(["a", "b", "c"]) == ["a", "c"]


def test_all_models_are_asked_when_all_are_down() -> None:
    outages = Outages(60, Watch())
    outages.failed("a", "b")
    outages.failed("b", "c")
    assert outages.to_ask(["a", "b"]) == ["a", "b"]


def test_it_is_turned_off_by_zero() -> None:
    outages = Outages(0, Watch())
    outages.failed("a", "b")
    assert outages.to_ask(["a", "b"]) == ["a", "b"]
    assert not outages.is_down("a")
