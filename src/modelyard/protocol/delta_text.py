"""The deltas of an answer as text: how an answer that arrives parsed goes the way of answers that are text.

Streams carry text, and readers parse it in the format of its model. Another server has parsed its model's answer
already, so its deltas are written with marks that no text of the answer can contain: each mark begins with DLE
(U+0010), and a DLE of the answer itself is written twice.

Hot path: ``marked`` and ``DeltaTextParser.push`` run once a piece of text, 0.5 µs each.
"""

from __future__ import annotations

import json
from typing import Final

from modelyard.protocol.deltas import (
    ContentDelta,
    Delta,
    ReasoningDelta,
    ToolCall,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from modelyard.protocol.values import OutputFormat

MARKED: Final = OutputFormat("marked", "", is_open=False)
"""The format of a text with marks."""

_ESCAPE: Final = "\x10"
_CONTENT, _REASONING, _CALL, _END = "c", "r", "t", "e"


def marked(text: str) -> str:
    """Return ``text``, a piece of content or of reasoning, without anything that reads like a mark."""
    return text.replace(_ESCAPE, _ESCAPE * 2) if _ESCAPE in text else text


def mark_of(*, is_reasoning: bool) -> str:
    """Return the mark of where reasoning begins, or content. A text begins with content."""
    return _ESCAPE + (_REASONING if is_reasoning else _CONTENT)


def marked_call(call: ToolCall) -> str:
    """Return a whole tool call as text."""
    written = json.dumps([call.id, call.name, call.arguments])
    return f"{_ESCAPE}{_CALL}{written}{_ESCAPE}{_END}"


class DeltaTextParser:
    """Parses a text with marks; an ``OutputParser``."""

    def __init__(self) -> None:
        self._is_reasoning = False
        self._held = ""
        # The text of a call that is not whole yet; None outside of one.
        self._call: str | None = None
        self._calls = 0

    def push(self, text: str) -> list[Delta]:
        """Return the deltas of ``text``. A call is returned once it is whole."""
        if not self._held and self._call is None and _ESCAPE not in text:
            return self._piece(text)
        deltas: list[Delta] = []
        text, self._held = self._held + text, ""
        while text:
            before, mark, behind = text.partition(_ESCAPE)
            self._add(before, deltas)
            if mark and not behind:
                self._held = mark
                break
            if mark:
                self._mark(behind[0], deltas)
            text = behind[1:]
        return deltas

    def finish(self, *, is_cut: bool = False) -> list[Delta]:
        """Return nothing: nothing is held back but what is incomplete, whether the answer was cut off or not."""
        del is_cut
        return []

    def _piece(self, text: str) -> list[Delta]:
        if not text:
            return []
        return [ReasoningDelta(text) if self._is_reasoning else ContentDelta(text)]

    def _add(self, text: str, deltas: list[Delta]) -> None:
        if self._call is None:
            deltas += self._piece(text)
        else:
            self._call += text

    def _mark(self, kind: str, deltas: list[Delta]) -> None:
        match kind:
            case "r" | "c":
                self._is_reasoning = kind == _REASONING
            case "t":
                self._call = ""
            case "e" if self._call is not None:
                call_id, name, arguments = json.loads(self._call)
                index, self._call = self._calls, None
                self._calls += 1
                deltas += (
                    ToolCallBegin(index, call_id, name),
                    ToolCallArguments(index, arguments),
                    ToolCallEnd(index),
                )
            case _:
                self._add(_ESCAPE, deltas)


def readable(text: str) -> str:
    """Return a text with marks as a person reads it: reasoning in tags, and calls as JSON on lines of their own."""
    if _ESCAPE not in text:
        return text
    parts: list[str] = []
    is_reasoning = False
    for delta in DeltaTextParser().push(text):
        if isinstance(delta, ReasoningDelta) != is_reasoning and isinstance(delta, ReasoningDelta | ContentDelta):
            is_reasoning = not is_reasoning
            parts.append("<think>" if is_reasoning else "</think>")
        match delta:
            case ReasoningDelta(piece) | ContentDelta(piece) | ToolCallArguments(_, piece):
                parts.append(piece)
            case ToolCallBegin(_, _, name):
                parts.append(f"\n{name} ")
            case ToolCallEnd():
                parts.append("\n")
    return "".join(parts)
