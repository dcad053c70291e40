"""Collects the calls of one answer, as a format's reader finds them, and turns them into deltas."""

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
    """Return a call id of OpenAI's form, which is globally unique."""
    return f"call_{secrets.token_hex(12)}"


class Calls:
    """Collects the deltas of one answer.

    The start of a call is published once the first member of its arguments begins. So text that looks like a call up to
    its opening brace, and goes on as Python or prose, stays content as a whole.

    Args:
        tools: the tools of the request.
        source: the text of the answer.
        new_id: makes the id of a call without an id of the model's.
    """

    __slots__ = ("_arguments", "_index", "_is_published", "_new_id", "_out", "_pending", "_source", "tools")

    def __init__(self, tools: Iterable[Tool], source: Source, new_id: Callable[[], str] = new_call_id) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._source = source
        self._new_id = new_id
        self._out: list[Delta] = []
        self._index = 0
        # Whether the start of the present call is among the deltas.
        self._is_published = False
        self._pending: ToolCallBegin | None = None
        self._arguments: list[str] = []

    def content(self, text: str) -> None:
        """Add content."""
        if text:
            self._out.append(ContentDelta(text))

    def reasoning(self, text: str) -> None:
        """Add reasoning."""
        if text:
            self._out.append(ReasoningDelta(text))

    def begin(self, name: str, call_id: str | None = None) -> None:
        """Begin a call; its arguments come next.

        Raises:
            Malformed: the name is empty.
        """
        if not name:
            raise Malformed
        self._pending = ToolCallBegin(self._index, call_id or self._new_id(), name)

    def arguments(self, text: str) -> None:
        """Add text of the arguments."""
        if self._pending is not None and text not in ("", "{") and not text.isspace():
            self._out.append(self._pending)
            self._pending = None
            self._is_published = True
        self._arguments.append(text)

    def end(self) -> None:
        """End the call, whose arguments are complete. The text behind it is not part of it."""
        self._flush_arguments()
        self._out.append(ToolCallEnd(self._index))
        self._is_published = False
        self._index += 1
        self._source.mark()

    def settle(self) -> None:
        """Assign the text so far to complete calls, so that no fault behind it turns it into content."""
        self._source.mark()

    def whole(self, name: str, arguments: str, call_id: str | None = None) -> None:
        """Add a complete call."""
        self.begin(name, call_id)
        self.arguments(arguments)
        self.end()

    def give_up(self, text: str) -> None:
        """End the present call as broken; ``text`` is all that was read of it."""
        if self._is_published:
            self._flush_arguments()
            self._out.append(ToolCallBroken(self._index, text))
            self._is_published = False
            self._index += 1
        else:
            self.content(text)
        self._pending = None
        self._arguments.clear()

    def deltas(self) -> list[Delta]:
        """Return the deltas since the last call of this method."""
        if self._is_published:
            self._flush_arguments()
        out, self._out = self._out, []
        return out

    def _flush_arguments(self) -> None:
        if self._arguments:
            self._out.append(ToolCallArguments(self._index, "".join(self._arguments)))
            self._arguments.clear()
