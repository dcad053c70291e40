"""A parser for answers whose first words belong to a header that the prompt has begun."""

from __future__ import annotations

from modelyard.protocol.deltas import ContentDelta, Delta, OutputParser


class ContinuedParser:
    """Parses an answer as if it began with ``opening``, the end of the prompt.

    Args:
        opening: the text that the prompt has written already.
        parser: parses the text. If it is no header, the opening is left out of the content.
    """

    __slots__ = ("_has_spoken", "_opening", "_parser", "_pending")

    def __init__(self, opening: str, parser: OutputParser) -> None:
        self._opening, self._parser = opening, parser
        self._pending = opening
        self._has_spoken = False

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that became certain with ``text``."""
        if not text:
            return []
        text, self._pending = self._pending + text, ""
        return self._without_opening(self._parser.push(text))

    def finish(self, *, is_cut: bool = False) -> list[Delta]:
        """Return the deltas of the text that was held back."""
        return self._without_opening(self._parser.finish(is_cut=is_cut))

    def _without_opening(self, deltas: list[Delta]) -> list[Delta]:
        if not deltas or self._has_spoken:
            return deltas
        self._has_spoken = True
        first, *rest = deltas
        if isinstance(first, ContentDelta) and first.text.startswith(self._opening):
            text = first.text.removeprefix(self._opening)
            return [ContentDelta(text), *rest] if text else rest
        return deltas
