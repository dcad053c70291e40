"""Stop strings: nothing of one leaks, nothing else is lost."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelyard.engine.output.stop_strings import StopFilter

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
        if stop.stopped_by is not None:
            return said, True
    return said + stop.flush(), False


@given(TEXT, st.lists(st.text("ab ", min_size=1, max_size=5), min_size=1, max_size=1), st.lists(st.integers(0, 99)))
def test_one_stop_string_cuts_at_its_first_place_however_the_text_is_split(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    at = text.find(stops[0])
    expected = (text, False) if at < 0 else (text[:at], True)
    assert filtered(pieces_of(text, cuts), stops) == expected


def cut(text: str, stops: list[str]) -> tuple[str, bool]:
    """Where the text is cut when it is read a character at a time: before the longest stop string that ends first."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@settings(max_examples=300)
@given(TEXT, STOPS, st.lists(st.integers(0, 99)))
@example("xabcd", ["bc", "abcd"], [])
@example("xabcd", ["bc", "abcd"], [1, 2, 3, 4])
@example("xabc", ["c", "bc"], [])
def test_of_several_the_first_to_be_complete_cuts_however_the_text_is_split(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    """A stream cannot wait for a longer stop string around one that is complete, so a whole text does not either."""
    assert filtered(pieces_of(text, cuts), stops) == cut(text, stops)


@given(TEXT, STOPS, st.lists(st.integers(0, 99)))
def test_only_what_could_begin_a_stop_string_is_held_back(text: str, stops: list[str], cuts: list[int]) -> None:
    stop, read, said = StopFilter(stops), "", ""
    for piece in pieces_of(text, cuts):
        read, said = read + piece, said + stop.push(piece)
        if stop.stopped_by is not None:
            assert stop.flush() == ""
            return
        held = read[len(said) :]
        assert read == said + held
        assert not held or any(whole.startswith(held) for whole in stops)


def test_text_that_begins_no_stop_string_passes_at_once() -> None:
    stop = StopFilter(["###"])
    assert stop.push("a #") == "a "
    assert stop.push("b") == "#b"


def test_without_stop_strings_everything_passes() -> None:
    stop = StopFilter([])
    assert stop.push("anything") == "anything"
    assert stop.flush() == ""
