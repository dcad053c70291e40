"""How the answer of an agent becomes the frames, or the body, of a dialect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from modelyard.agent.events import CallEnded, ToolEvent
from modelyard.api.serving.streaming import ChoiceEncoder
from modelyard.protocol.deltas import ContentDelta, Delta, Message, ReasoningDelta
from modelyard.protocol.events import Finished
from modelyard.yard.requests.token_stream import TokenStream

BETWEEN_ROUNDS: Final = "\n\n"
"""Stands between the texts of two rounds, where a dialect has one text for all."""


@dataclass(frozen=True, slots=True)
class RoundMessage:
    """What the model wrote in a round, with calls of the client's tools.

    Attributes:
        message: never empty.
        round: number of the round, from 0.
    """

    message: Message
    round: int


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """A whole answer of an agent.

    Attributes:
        parts: what the model wrote, and its calls of the server's tools, in their order: that a call began, and its
            result, or that it is returned for its approval.
        finished: the reason of the last round, with the usage of all rounds.
        calls_client: whether the answer ends because it calls tools of the client.
    """

    parts: tuple[RoundMessage | ToolEvent, ...]
    finished: Finished
    calls_client: bool

    @property
    def message(self) -> Message:
        """All content, reasoning and calls of the client's tools as one message, with empty lines between rounds."""
        messages = [part.message for part in self.parts if isinstance(part, RoundMessage)]
        return Message(
            BETWEEN_ROUNDS.join(each.content for each in messages if each.content),
            BETWEEN_ROUNDS.join(each.reasoning for each in messages if each.reasoning),
            tuple(call for each in messages for call in each.tool_calls),
        )

    @property
    def calls(self) -> tuple[CallEnded, ...]:
        """The calls of the server's tools that have a result."""
        return tuple(part for part in self.parts if isinstance(part, CallEnded))


class RoundJoints:
    """Puts an empty line between the texts of two rounds, as ``AgentAnswer.message`` does, for dialects of one text."""

    def __init__(self) -> None:
        # The kinds of text that the answer has so far, and that the present round has.
        self._written: set[type] = set()
        self._in_round: set[type] = set()

    def next_round(self) -> None:
        """Begin the next round."""
        self._in_round.clear()

    def joined(self, delta: Delta) -> Delta:
        """Return a delta of the present round as one of the whole answer."""
        kind = type(delta)
        if not isinstance(delta, ContentDelta | ReasoningDelta) or kind in self._in_round or not delta.text:
            return delta
        self._in_round.add(kind)
        if kind not in self._written:
            self._written.add(kind)
            return delta
        return type(delta)(BETWEEN_ROUNDS + delta.text)


class AgentEncoder(ChoiceEncoder, Protocol):
    """A ``ChoiceEncoder`` that also encodes the answers of agents.

    A stream calls ``open`` once, then ``next_round``, ``deltas`` and ``tool_event`` as things happen, ``close_agent``
    and ``end``. A whole answer calls ``open``, ``next_round``, whose frame is not sent, ``agent_choice`` and ``whole``.
    ``text``, ``close`` and ``choice`` are not called.
    """

    def next_round(self, generation: TokenStream) -> bytes:
        """Return the frame that begins a round after the first; often b""."""

    def deltas(self, deltas: Sequence[Delta]) -> bytes:
        """Return the frames of what the model has written."""

    def tool_event(self, event: ToolEvent) -> bytes:
        """Return the frames of what happens with a call of one of the server's tools."""

    def close_agent(self, finished: Finished, *, calls_client: bool) -> bytes:
        """Return the last frame of the choice; ``finished`` has the usage of all rounds."""

    def agent_choice(self, answer: AgentAnswer) -> Any:
        """Return the choice for a whole answer."""
