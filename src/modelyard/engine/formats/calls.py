"""The calls of one answer as a format finds them: their numbers, their ids, and what of them was told already."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source
from modelyard.protocol.deltas import (
    ContentDelta,
    Delta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallBroken,
    ToolCallEnd,
)


def new_call_id() -> str:
    """An id as OpenAI's look: unique within a conversation, and beyond."""
    return f"call_{secrets.token_hex(12)}"


class Calls:
    """Collects the deltas of one piece of text.

    A call is told once the first member of its arguments began: what looks like a call up to its opening brace, and is
    Python or prose behind it, stays content as a whole.

    Args:
        tools: those of the request.
        new_id: makes the id of a call to which its model gave none.
    """

    __slots__ = ("_arguments", "_begun", "_index", "_new_id", "_out", "_source", "_waiting", "tools")

    def __init__(self, tools: Iterable[Tool], source: Source, new_id: Callable[[], str] = new_call_id) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._source = source
        self._new_id = new_id
        self._out: list[Delta] = []
        self._index = 0
        self._begun = False
        self._waiting: ToolCallBegin | None = None
        self._arguments: list[str] = []

    def content(self, text: str) -> None:
        """Tell content."""
        if text:
            self._out.append(ContentDelta(text))

    def reasoning(self, text: str) -> None:
        """Tell reasoning."""
        if text:
            self._out.append(ReasoningDelta(text))

    def begin(self, name: str, call_id: str | None = None) -> None:
        """A call with this name begins; its arguments come next.

        Raises:
            Malformed: the name is empty.
        """
        if not name:
            raise Malformed
        self._waiting = ToolCallBegin(self._index, call_id or self._new_id(), name)

    def arguments(self, text: str) -> None:
        """More text of the arguments."""
        if self._waiting is not None and text not in ("", "{") and not text.isspace():
            self._out.append(self._waiting)
            self._waiting = None
            self._begun = True
        self._arguments.append(text)

    def end(self) -> None:
        """The arguments are whole. What the model writes next is not part of this call."""
        self._tell_arguments()
        self._out.append(ToolCallEnd(self._index))
        self._begun = False
        self._index += 1
        self._source.mark()

    def settle(self) -> None:
        """What was read so far belongs to calls that are whole: nothing behind it can make it content."""
        self._source.mark()

    def whole(self, name: str, arguments: str, call_id: str | None = None) -> None:
        """A call of which all is known at once."""
        self.begin(name, call_id)
        self.arguments(arguments)
        self.end()

    def give_up(self, text: str) -> None:
        """What is being read is no call: ``text`` is all of it."""
        if self._begun:
            self._tell_arguments()
            self._out.append(ToolCallBroken(self._index, text))
            self._begun = False
            self._index += 1
        else:
            self.content(text)
        self._waiting = None
        self._arguments.clear()

    def deltas(self) -> list[Delta]:
        """All that was told since the last time."""
        if self._begun:
            self._tell_arguments()
        out, self._out = self._out, []
        return out

    def _tell_arguments(self) -> None:
        if self._arguments:
            self._out.append(ToolCallArguments(self._index, "".join(self._arguments)))
            self._arguments.clear()
