"""What a request's model read and wrote, where the operator has it recorded.

Hot path: ``Transcript.add`` runs once a token.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

from modelyard.protocol.delta_text import readable

MAX_ANSWER_CHARS: Final = 256 * 1024
"""Characters of one answer; the rest is not kept."""

MAX_PROMPT_TOKENS: Final = 64 * 1024
"""Tokens of one prompt; the rest is not kept."""

_PIECE_BYTES: Final = 64
"""What a piece of text takes beside its characters."""


class Transcript:
    """The texts of one request.

    Attributes:
        prompt: token ids of the prompt as the template wrote it, without those of images and sound.
        is_marked: whether the answer is a text with the marks of ``protocol.delta_text``.
    """

    __slots__ = ("_chars", "_pieces", "is_marked", "prompt")

    def __init__(self) -> None:
        self.prompt = array("i")
        self.is_marked = False
        self._pieces: list[str] = []
        self._chars = 0

    def read(self, tokens: Iterable[int]) -> None:
        """Take the prompt; ids of images and sound are below 0."""
        self.prompt = array("i", [token for token in tokens if token >= 0][:MAX_PROMPT_TOKENS])

    def add(self, text: str) -> None:
        """Take a piece of the answer."""
        if self._chars < MAX_ANSWER_CHARS:
            self._pieces.append(text)
            self._chars += len(text)

    @property
    def answer(self) -> str:
        """The answer up to now, with its reasoning and the calls that it writes."""
        text = "".join(self._pieces)[:MAX_ANSWER_CHARS]
        return readable(text) if self.is_marked else text

    def close(self) -> None:
        """Join the pieces, which take more memory than their text: the answer is over."""
        self._pieces = ["".join(self._pieces)[:MAX_ANSWER_CHARS]]

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, counting four bytes for each character."""
        return 4 * self._chars + _PIECE_BYTES * len(self._pieces) + len(self.prompt) * self.prompt.itemsize
