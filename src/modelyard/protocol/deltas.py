"""What an answer is made of once its text is understood: content, reasoning and tool calls, piece by piece.

A parser turns text into these; an answer that is not streamed is the fold over them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """More of what the model says to the user."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model says to itself."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBegin:
    """A call with a whole name; its arguments follow. index counts the calls of one answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More of the arguments: the pieces of a call that ends add up to one JSON object."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """The arguments are whole."""

    index: int


@dataclass(frozen=True, slots=True)
class ToolCallBroken:
    """A call that began turned out to be none: its JSON is malformed, or the answer was cut off within it.

    What was sent of its arguments is the beginning of a JSON object, and never the whole of one: a client that parses
    them finds out. Closing them instead would call a tool with arguments that the model never finished.

    Attributes:
        text: all that the model wrote for the call, markers included, which is content then.
    """

    index: int
    text: str


Delta = ContentDelta | ReasoningDelta | ToolCallBegin | ToolCallArguments | ToolCallEnd | ToolCallBroken


class OutputParser(Protocol):
    """Understands one answer. Its result does not depend on how the text was split."""

    def push(self, text: str) -> list[Delta]:
        """What became certain with ``text``. Never raises, whatever the text."""

    def finish(self) -> list[Delta]:
        """What was held back, now that no more text comes. Nothing is pushed after it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call. arguments is the text of a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """A whole answer."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


def fold(deltas: Iterable[Delta]) -> Message:
    """The answer that the deltas add up to. A call that broke, or did not end, is content or nothing, never a call."""
    content: list[str] = []
    reasoning: list[str] = []
    begun: dict[int, ToolCallBegin] = {}
    arguments: dict[int, list[str]] = {}
    whole: list[ToolCall] = []
    for delta in deltas:
        match delta:
            case ContentDelta(text):
                content.append(text)
            case ReasoningDelta(text):
                reasoning.append(text)
            case ToolCallBegin(index):
                begun[index] = delta
                arguments[index] = []
            case ToolCallArguments(index, text):
                arguments[index].append(text)
            case ToolCallEnd(index):
                whole.append(ToolCall(begun[index].id, begun[index].name, "".join(arguments[index])))
            case ToolCallBroken(_, text):
                content.append(text)
    return Message("".join(content), "".join(reasoning), tuple(whole))
