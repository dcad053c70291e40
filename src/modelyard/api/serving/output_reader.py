"""Parses the text of an answer into content, reasoning and tool calls, in the model's formats."""

from __future__ import annotations

from modelyard.engine.chat.chat_format import parser_of
from modelyard.protocol.deltas import ContentDelta, Delta, Message, fold
from modelyard.protocol.prompts import Chat, Prompt
from modelyard.yard.requests.generation import TokenStream


class OutputReader:
    """Parses one answer to ``prompt``, piece by piece or whole.

    Attributes:
        is_plain: whether all text is content, so that no parser runs.
    """

    __slots__ = ("_parser", "is_plain")

    def __init__(self, generation: TokenStream, prompt: Prompt) -> None:
        reading = generation.reading
        self._parser = parser_of(reading, prompt) if reading is not None and isinstance(prompt, Chat) else None
        self.is_plain = self._parser is None

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that ``text`` completes."""
        return [ContentDelta(text)] if self._parser is None else self._parser.push(text)

    def finish(self) -> list[Delta]:
        """Return the deltas that the parser held back."""
        return [] if self._parser is None else self._parser.finish()

    def whole(self, text: str) -> Message:
        """Return the message for the whole ``text``."""
        return Message(text) if self._parser is None else fold([*self._parser.push(text), *self._parser.finish()])
