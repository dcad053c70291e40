"""Parses the text of an answer into content, reasoning and tool calls, in the model's formats."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.engine.chat.chat_format import max_calls_of, parser_of
from modelyard.protocol.delta_text import MARKED, DeltaTextParser
from modelyard.protocol.deltas import ContentDelta, Delta, Message, OutputParser, ToolCallEnd, fold
from modelyard.protocol.events import Finished
from modelyard.protocol.prompts import Chat, Prompt
from modelyard.yard.requests.token_stream import TokenStream


class OutputReader:
    """Parses one answer to ``prompt``, piece by piece or whole.

    Attributes:
        is_plain: whether all text is content, so that no parser runs.
    """

    __slots__ = ("_calls", "_max_calls", "_parser", "is_plain")

    def __init__(self, generation: TokenStream, prompt: Prompt) -> None:
        output_format = generation.output_format
        self._parser: OutputParser | None = None
        if output_format == MARKED:
            self._parser = DeltaTextParser()
        elif output_format is not None and isinstance(prompt, Chat):
            self._parser = parser_of(output_format, prompt)
        self._max_calls = max_calls_of(prompt) if isinstance(prompt, Chat) else None
        self._calls = 0
        self.is_plain = self._parser is None

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that ``text`` completes."""
        return [ContentDelta(text)] if self._parser is None else self._counted(self._parser.push(text))

    def finish(self, finished: Finished) -> list[Delta]:
        """Return the deltas that the parser held back. A call that was cut off is left out."""
        if self._parser is None:
            return []
        return self._counted(self._parser.finish(is_cut=finished.reason == "length"))

    def whole(self, text: str, finished: Finished) -> Message:
        """Return the message for the whole ``text``."""
        return fold([*self.push(text), *self.finish(finished)])

    def ends_with_calls(self, finished: Finished) -> bool:
        """Whether the answer ended because it calls tools. Valid after ``finish``.

        An answer that was cut off may lack further calls, unless it has as many as it may have.
        """
        return self._calls > 0 and (finished.reason != "length" or self._calls == self._max_calls)

    def _counted(self, deltas: Sequence[Delta]) -> list[Delta]:
        self._calls += sum(isinstance(delta, ToolCallEnd) for delta in deltas)
        return list(deltas)
