"""Thinking is taken out of text, however the chunks cut it."""

import itertools
from collections.abc import Iterator

import pytest

from longhaul.llm.completion import ReasoningSplitter

#: What a model wrote, the text in it, the reasoning in it.
CASES = [
    ("plain", "plain", ""),
    ("", "", ""),
    ("<think>a</think>b", "b", "a"),
    ("<thinking>a</thinking>b", "b", "a"),
    ("x<think>a</think>y<thinking>b</thinking>z", "xyz", "ab"),
    ("<think>never closed", "", "never closed"),
    ("<think>", "", ""),
    ("<think></think>", "", ""),
    ("text </think> stays", "text </think> stays", ""),
    ("<think>a<think>b</think>c", "c", "a<think>b"),
    ("<think>a</thinking>b", "b", "a"),
    ("1 < 2 <b>bold</b> <th>head</th>", "1 < 2 <b>bold</b> <th>head</th>", ""),
    ("<<think>a<</think>b", "<b", "a<"),
    ("<thin", "<thin", ""),
    ("<think>a</thin", "", "a</thin"),
    ("<thinker>no</thinker>", "<thinker>no</thinker>", ""),
    ("< think>no", "< think>no", ""),
    ("<Think>no", "<Think>no", ""),
    ("ü<think>日本</think>🙂", "ü🙂", "日本"),
]


def split(pieces: list[str]) -> tuple[str, str, list[str]]:
    """The text, the reasoning, and the kinds in the order in which they came."""
    splitter = ReasoningSplitter()
    found = [one for piece in pieces for one in splitter.feed(piece)] + splitter.end()
    assert all(text for _, text in found), "empty pieces open blocks that hold nothing"
    joined = {kind: "".join(text for k, text in found if k == kind) for kind in ("text", "reasoning")}
    return joined["text"], joined["reasoning"], [kind for kind, _ in itertools.groupby(found, key=lambda one: one[0])]


@pytest.mark.parametrize(("written", "text", "reasoning"), CASES)
def test_all_ways_to_cut_it_in_up_to_three(written: str, text: str, reasoning: str) -> None:
    whole = split([written])
    assert whole[:2] == (text, reasoning)
    for first, second in itertools.combinations_with_replacement(range(len(written) + 1), 2):
        assert split([written[:first], written[first:second], written[second:]]) == whole, (first, second)


@pytest.mark.parametrize(("written", "text", "reasoning"), CASES)
def test_character_by_character(written: str, text: str, reasoning: str) -> None:
    assert split([*written])[:2] == (text, reasoning)


def all_cuts(written: str) -> Iterator[list[str]]:
    for cuts in range(2 ** (len(written) - 1)):
        pieces = [written[0]]
        for place, char in enumerate(written[1:]):
            if cuts >> place & 1:
                pieces.append(char)
            else:
                pieces[-1] += char
        yield pieces


def test_every_way_to_cut_a_tag() -> None:
    for pieces in all_cuts("a<think>b"):
        assert split(pieces) == ("a", "b", ["text", "reasoning"]), pieces
    for pieces in all_cuts("b</thinking>c"):
        assert split(["<think>", *pieces]) == ("c", "b", ["reasoning", "text"]), pieces


def test_nothing_is_held_back_that_can_be_no_tag() -> None:
    splitter = ReasoningSplitter()
    assert splitter.feed("1 <") == [("text", "1 ")]
    assert splitter.feed(" 2") == [("text", "< 2")]
    assert splitter.feed("<think>why") == [("reasoning", "why")]
    assert splitter.feed("</") == []
    assert splitter.feed("b>") == [("reasoning", "</b>")]
