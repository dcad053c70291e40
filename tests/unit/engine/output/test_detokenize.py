"""Bytes of tokens become whole characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.engine.output.detokenize import Utf8Stream


@given(st.text(), st.integers(1, 3))
def test_text_survives_any_split_into_bytes(text: str, size: int) -> None:
    raw = text.encode()
    stream = Utf8Stream()
    assert "".join(stream.push(raw[at : at + size]) for at in range(0, len(raw), size)) == text


def test_an_unfinished_character_is_held_back() -> None:
    stream = Utf8Stream()
    assert [stream.push(bytes([byte])) for byte in "🎉".encode()] == ["", "", "", "🎉"]


def test_bytes_that_can_be_no_character_become_the_replacement_character() -> None:
    stream = Utf8Stream()
    assert stream.push(b"a\xffb") == "a\N{REPLACEMENT CHARACTER}b"


@given(st.lists(st.binary(max_size=5)))
def test_any_bytes_become_text_that_never_ends_within_a_character(pieces: list[bytes]) -> None:
    stream = Utf8Stream()
    text = "".join(stream.push(piece) for piece in pieces)
    whole = b"".join(pieces)
    text.encode()
    # What is missing at the end, if anything, is the beginning of one character.
    rest = [whole.decode(errors="replace"), *(whole[:-held].decode(errors="replace") for held in (1, 2, 3))]
    assert text in rest


def test_a_character_that_is_broken_off_does_not_swallow_the_next() -> None:
    stream = Utf8Stream()
    assert stream.push(b"\xf0\x9f") == ""
    assert stream.push(b"a") == "\N{REPLACEMENT CHARACTER}a"
