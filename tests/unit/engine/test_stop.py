"""Stop strings: nothing of one leaks, nothing else is lost."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from modelyard.engine.stop import StopFilter

TEXT = st.text("ab ", max_size=24)
STOPS = st.lists(st.text("ab ", min_size=1, max_size=5), max_size=4)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(at)]


def filtered(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    stop = StopFilter(stops)
    said = ""
    for piece in pieces:
        said += stop.push(piece)
        if stop.stopped:
            return said, True
    return said + stop.flush(), False


@given(TEXT, st.lists(st.text("ab ", min_size=1, max_size=5), min_size=1, max_size=1), st.lists(st.integers(0, 99)))
def test_one_stop_string_cuts_at_its_first_place_however_the_text_is_split(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    at = text.find(stops[0])
    expected = (text, False) if at < 0 else (text[:at], True)
    assert filtered(pieces_of(text, cuts), stops) == expected


@given(TEXT, STOPS, st.lists(st.integers(0, 99)))
@example("xabcd", ["bc", "abcd"], [1, 2, 3, 4])
def test_of_several_the_first_to_be_complete_cuts_and_none_leaks(text: str, stops: list[str], cuts: list[int]) -> None:
    """A stream cannot wait for a longer stop string once a shorter one within it is complete."""
    said, stopped = filtered(pieces_of(text, cuts), stops)
    assert stopped == any(stop in text for stop in stops)
    assert text.startswith(said)
    assert not any(stop in said for stop in stops)
    if stopped:
        assert any(text.startswith(stop, len(said)) for stop in stops)
    else:
        assert said == text


def test_text_that_begins_no_stop_string_passes_at_once() -> None:
    stop = StopFilter(["###"])
    assert stop.push("a #") == "a "
    assert stop.push("b") == "#b"


def test_without_stop_strings_everything_passes() -> None:
    stop = StopFilter([])
    assert stop.push("anything") == "anything"
    assert stop.flush() == ""
