"""Messages from an engine's own threads to its loop, beside the messages from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.protocol.messages import Message
from modelyard.protocol.values import SequenceId

if TYPE_CHECKING:
    from concurrent.futures import Future

    from modelyard.engine.guidance import Constraint


@dataclass(frozen=True, slots=True)
class Compiled:
    """The grammar of a sequence is compiled, or failed. Sent by the engine's grammar thread."""

    sequence: SequenceId
    constraint: Future[Constraint | None]


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The prompt of a sequence is tokenised, or refused. Sent by the engine's readers."""

    sequence: SequenceId
    outcome: Future[Any]


LoopMessage = Message | PromptRead | Compiled
