"""The text of an answer, understood: content, reasoning and calls, as the model's formats have them."""

from __future__ import annotations

from modelyard.engine.chat.chat_format import parser_of
from modelyard.protocol.deltas import ContentDelta, Delta, Message, fold
from modelyard.protocol.prompts import Chat, Prompt
from modelyard.yard.requests.generation import TokenStream


class OutputReader:
    """Reads one answer to ``prompt``, piece by piece or whole. A plain one is content, and costs nothing.

    Attributes:
        is_plain: whether its text is all that there is to it.
    """

    __slots__ = ("_parser", "is_plain")

    def __init__(self, generation: TokenStream, prompt: Prompt) -> None:
        reading = generation.reading
        self._parser = parser_of(reading, prompt) if reading is not None and isinstance(prompt, Chat) else None
        self.is_plain = self._parser is None

    def push(self, text: str) -> list[Delta]:
        """What became certain with ``text``."""
        return [ContentDelta(text)] if self._parser is None else self._parser.push(text)

    def finish(self) -> list[Delta]:
        """What was held back."""
        return [] if self._parser is None else self._parser.finish()

    def whole(self, text: str) -> Message:
        """The answer of which ``text`` is all."""
        return Message(text) if self._parser is None else fold([*self._parser.push(text), *self._parser.finish()])
