"""The frames between a server and a process of engines, which carry the engines' messages and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import Event
from modelyard.protocol.messages import Message


@dataclass(frozen=True, slots=True)
class StartEngine:
    """To the process: start an engine with this number."""

    engine: int
    settings: EngineSettings


@dataclass(frozen=True, slots=True)
class ToEngine:
    """To the process: a message for an engine."""

    engine: int
    message: Message


@dataclass(frozen=True, slots=True)
class ReleaseWeights:
    """To the process: release the weights that the engine of this number has parked."""

    engine: int


@dataclass(frozen=True, slots=True)
class TemplateAnswer:
    """To the process: the answer to ``AskTemplate``; None if no process could render it, for the reason why_not."""

    number: int
    answer: dict[str, Any] | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class AskTemplate:
    """From the process: render a chat template; see ``TemplateProcesses.ask``."""

    number: int
    digest: str
    source: str
    names: bytes | None


@dataclass(frozen=True, slots=True)
class FromEngine:
    """From the process: the events of one step of an engine. has_parked: whether it left parked weights there."""

    engine: int
    events: tuple[Event, ...]
    has_parked: bool = False


@dataclass(frozen=True, slots=True)
class LogLine:
    """From the process: a record for the server's log. level: as in ``logging``."""

    logger: str
    level: int
    text: str


ToProcess = StartEngine | ToEngine | ReleaseWeights | TemplateAnswer
FromProcess = FromEngine | LogLine | AskTemplate
