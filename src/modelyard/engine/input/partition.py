"""Divides a prompt into its control tokens and the text between them. Pure.

llama.cpp does the same, but takes every text that reads like a control token for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from modelyard.engine.chat.marked_text import is_by_template, unmarked
from modelyard.engine.llama import SpecialToken

# White space of C's isspace, by which llama.cpp strips.
_BLANK: Final = " \t\n\v\f\r"

# Characters of a token's text by which occurrences are found.
_BEGINNING: Final = 2


@dataclass(frozen=True, slots=True)
class _Occurrence:
    rank: int
    start: int
    token: SpecialToken

    @property
    def stop(self) -> int:
        return self.start + len(self.token.text)


class Partition:
    """Divides the prompts of one vocabulary.

    Args:
        tokens: the special tokens, in the order in which they are looked for.
    """

    def __init__(self, tokens: Iterable[SpecialToken]) -> None:
        self._by_text: dict[str, tuple[int, SpecialToken]] = {}
        for rank, token in enumerate(tokens):
            self._by_text.setdefault(token.text, (rank, token))
        lengths: dict[str, set[int]] = {}
        for text in self._by_text:
            lengths.setdefault(text[:_BEGINNING], set()).add(len(text))
        self._lengths = {beginning: sorted(found) for beginning, found in lengths.items()}
        alternatives = "|".join(map(re.escape, self._lengths)) or r"(?!)"
        # A look-ahead, so that occurrences may overlap.
        self._beginnings = re.compile(f"(?={alternatives})")

    def divide(self, text: str) -> Iterator[SpecialToken | str]:
        """Yield the control tokens that the template wrote, and the text around them, in order.

        A token that is text is left in the text. Where tokens overlap, the one that is looked for first is found, as by
        llama.cpp.
        """
        plain = unmarked(text)
        end = 0
        for start, stop, token in self._found(text, plain):
            if start > end:
                yield plain[end:start]
            yield token
            end = stop
        if end < len(plain):
            yield plain[end:]

    def _found(self, text: str, plain: str) -> list[tuple[int, int, SpecialToken]]:
        """Return the control tokens, with the offsets of what they take from the text."""
        # For each character, whether a token has it.
        taken = bytearray(len(plain))
        found: list[tuple[int, int, SpecialToken]] = []
        for occurrence in sorted(self._occurrences(text, plain), key=lambda one: (one.rank, one.start)):
            start, stop, token = occurrence.start, occurrence.stop, occurrence.token
            if taken.find(1, start, stop) >= 0:
                continue
            while token.strips_left and start > 0 and not taken[start - 1] and plain[start - 1] in _BLANK:
                start -= 1
            while token.strips_right and stop < len(plain) and not taken[stop] and plain[stop] in _BLANK:
                stop += 1
            taken[start:stop] = b"\1" * (stop - start)
            if not token.is_text:
                found.append((start, stop, token))
        return sorted(found, key=lambda one: one[0])

    def _occurrences(self, text: str, plain: str) -> Iterator[_Occurrence]:
        """Yield where tokens may be: control tokens only where the template wrote all of their text."""
        for match in self._beginnings.finditer(plain):
            start = match.start()
            for size in range(1, _BEGINNING + 1):
                for length in self._lengths.get(plain[start : start + size], ()):
                    entry = self._by_text.get(plain[start : start + length])
                    if entry is not None and (entry[1].is_text or is_by_template(text, start, start + length)):
                        yield _Occurrence(entry[0], start, entry[1])
