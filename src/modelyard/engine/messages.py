"""What the threads of an engine send to its loop, beside the messages that come from outside."""

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
    """The grammar of a sequence is ready, or is none. Sent by the engine's own thread for grammars."""

    sequence: SequenceId
    constraint: Future[Constraint | None]


@dataclass(frozen=True, slots=True)
class PromptRead:
    """What a sequence brought is tokens now, or is refused. Sent by the engine's own threads that read."""

    sequence: SequenceId
    outcome: Future[Any]


LoopMessage = Message | PromptRead | Compiled
