"""The parsed pieces of an answer: content, reasoning and tool calls.

A parser turns the text of an answer into deltas; an answer that is not streamed is the fold over them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """More text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More text of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBegin:
    """The start of a call, with its whole name; the arguments follow. index counts the calls of one answer from 0.

    A parser makes the deltas of a call once it is whole, because a delta that was sent cannot be taken back: a client
    never sees a call that turns out to be none, or that ``max_tokens`` cut off.
    """

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More text of the arguments. The pieces of a call add up to one JSON object."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """The arguments of a call are complete."""

    index: int


Delta = ContentDelta | ReasoningDelta | ToolCallBegin | ToolCallArguments | ToolCallEnd


class OutputParser(Protocol):
    """Parses one answer. The deltas add up to the same message however the text is split."""

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that became certain with ``text``. Never raises, whatever the text."""

    def finish(self, *, is_cut: bool = False) -> list[Delta]:
        """Return the deltas of the text that was held back. ``push`` must not be called afterwards.

        is_cut: whether the answer ended because it may not be longer, so that what is incomplete is left out.
        """


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete tool call. arguments is the text of a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """A complete answer."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


def fold(deltas: Iterable[Delta]) -> Message:
    """Return the message that the deltas add up to."""
    content: list[str] = []
    reasoning: list[str] = []
    started: dict[int, ToolCallBegin] = {}
    arguments: dict[int, list[str]] = {}
    calls: list[ToolCall] = []
    for delta in deltas:
        match delta:
            case ContentDelta(text):
                content.append(text)
            case ReasoningDelta(text):
                reasoning.append(text)
            case ToolCallBegin(index):
                started[index] = delta
                arguments[index] = []
            case ToolCallArguments(index, text):
                arguments[index].append(text)
            case ToolCallEnd(index):
                calls.append(ToolCall(started[index].id, started[index].name, "".join(arguments[index])))
    return Message("".join(content), "".join(reasoning), tuple(calls))


def deltas_of(message: Message) -> list[Delta]:
    """Return deltas that add up to ``message``, with its calls numbered from 0."""
    deltas: list[Delta] = []
    if message.reasoning:
        deltas.append(ReasoningDelta(message.reasoning))
    if message.content:
        deltas.append(ContentDelta(message.content))
    for index, call in enumerate(message.tool_calls):
        deltas.append(ToolCallBegin(index, call.id, call.name))
        deltas += (ToolCallArguments(index, call.arguments), ToolCallEnd(index))
    return deltas
