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
    ToolCallEnd,
)


def new_call_id() -> str:
    """Return a call id of OpenAI's form, which is globally unique."""
    return f"call_{secrets.token_hex(12)}"


class Calls:
    """Collects the deltas of one answer.

    A call becomes deltas once it is whole. Deltas that were sent cannot be taken back, and until then the text may turn
    out to be prose, be malformed, or be cut off. So a stream and a whole answer hold the same calls.

    Args:
        tools: the tools of the request.
        source: the text of the answer.
        new_id: makes the id of a call without an id of the model's.
        max_calls: limit of calls. All that follows the last one is left out.
    """

    __slots__ = ("_arguments", "_index", "_max_calls", "_new_id", "_out", "_pending", "_source", "tools")

    def __init__(
        self,
        tools: Iterable[Tool],
        source: Source,
        new_id: Callable[[], str] = new_call_id,
        max_calls: int | None = None,
    ) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._source = source
        self._new_id = new_id
        self._max_calls = max_calls
        self._out: list[Delta] = []
        self._index = 0
        # The name and the id of the call that is being read.
        self._pending: tuple[str, str | None] | None = None
        self._arguments: list[str] = []

    @property
    def has_begun(self) -> bool:
        """Whether a call is being read, whose name is known."""
        return self._pending is not None

    @property
    def is_full(self) -> bool:
        """Whether the answer has as many calls as it may have."""
        return self._index == self._max_calls

    def content(self, text: str) -> None:
        """Add content."""
        if text and not self.is_full:
            self._out.append(ContentDelta(text))

    def reasoning(self, text: str) -> None:
        """Add reasoning."""
        if text and not self.is_full:
            self._out.append(ReasoningDelta(text))

    def begin(self, name: str, call_id: str | None = None) -> None:
        """Begin a call; its arguments come next.

        Raises:
            Malformed: the name is empty.
        """
        if not name:
            raise Malformed
        self._pending = name, call_id
        self._arguments.clear()

    def arguments(self, text: str) -> None:
        """Add text of the arguments."""
        self._arguments.append(text)

    def end(self) -> None:
        """End the call, whose arguments are complete. The text behind it is not part of it."""
        assert self._pending is not None
        name, call_id = self._pending
        if not self.is_full:
            self._out += (
                ToolCallBegin(self._index, call_id or self._new_id(), name),
                ToolCallArguments(self._index, "".join(self._arguments)),
                ToolCallEnd(self._index),
            )
            self._index += 1
        self.drop()
        self._source.mark()

    def settle(self) -> None:
        """Assign the text so far to complete calls, so that no fault behind it turns it into content."""
        self._source.mark()

    def whole(self, name: str, arguments: str, call_id: str | None = None) -> None:
        """Add a complete call."""
        self.begin(name, call_id)
        self.arguments(arguments)
        self.end()

    def drop(self) -> None:
        """Forget the call that is being read."""
        self._pending = None
        self._arguments.clear()

    def deltas(self) -> list[Delta]:
        """Return the deltas since the last call of this method."""
        out, self._out = self._out, []
        return out
