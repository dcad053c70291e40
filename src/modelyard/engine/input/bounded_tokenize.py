"""A text is tokenised in growing parts: one of 50 MB is refused after a part as large as what may be there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# More than most tokens stand for.
COMMON_TOKEN_CHARACTERS: Final = 8
_GROWTH: Final = 4


def tokens_of_beginning(tokenize: Callable[[str], list[int]], text: str, most: int) -> tuple[list[int], str]:
    """The tokens of ``text``, or of a part of it that has more than ``most``.

    Returns:
        Their ids, and what they are of.
    """
    length = max(most, 1) * COMMON_TOKEN_CHARACTERS
    while len(ids := tokenize(text[:length])) <= most and length < len(text):
        length *= _GROWTH
    return ids, text[:length]
