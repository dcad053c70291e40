"""Tokenises a text in growing parts: a text of 50 MB is refused after a part as large as what fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# More characters than most tokens have.
COMMON_TOKEN_CHARACTERS: Final = 8
_GROWTH: Final = 4


def tokenize_beginning(tokenize: Callable[[str], list[int]], text: str, limit: int) -> tuple[list[int], str]:
    """Tokenise ``text``, or a part from its beginning that has more than ``limit`` tokens.

    Returns:
        The token ids, and the text that they represent.
    """
    length = max(limit, 1) * COMMON_TOKEN_CHARACTERS
    while len(ids := tokenize(text[:length])) <= limit and length < len(text):
        length *= _GROWTH
    return ids, text[:length]
