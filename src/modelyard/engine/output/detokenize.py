"""From the bytes of tokens to text: a character that is split over tokens is sent whole."""

from __future__ import annotations

import codecs


class Utf8Stream:
    """Turns the byte pieces of successive tokens into complete characters.

    Bytes that can never become a character turn into U+FFFD. Bytes that could still become one are held back, and
    are dropped where the text ends within them.
    """

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, piece: bytes) -> str:
        """Return the characters that ``piece`` completes: often "", for a byte of a longer character."""
        return self._decoder.decode(piece)
