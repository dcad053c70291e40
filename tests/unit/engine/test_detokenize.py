"""Bytes of tokens become whole characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.engine.detokenize import Utf8Stream


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
