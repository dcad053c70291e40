"""What crosses between a server and a process of engines, beside the engines' own messages and events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelyard.engine.settings import EngineSettings
from modelyard.protocol.events import Event
from modelyard.protocol.messages import Message


@dataclass(frozen=True, slots=True)
class StartEngine:
    """To the process: make the engine of that number, and have it load."""

    engine: int
    settings: EngineSettings


@dataclass(frozen=True, slots=True)
class ToEngine:
    """To the process: a message for an engine."""

    engine: int
    message: Message


@dataclass(frozen=True, slots=True)
class ReleaseWeights:
    """To the process: give up weights that an engine of that number has parked."""

    engine: int


@dataclass(frozen=True, slots=True)
class TemplateAnswer:
    """To the process: what came of ``AskTemplate``; None where no process could be had, and why_not says why."""

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
    """From the process: what an engine published with one step. Weights that it parked stay in the process."""

    engine: int
    events: tuple[Event, ...]
    has_parked: bool = False


@dataclass(frozen=True, slots=True)
class LogLine:
    """From the process: something for the server's log, by Python's levels."""

    logger: str
    level: int
    text: str


ToProcess = StartEngine | ToEngine | ReleaseWeights | TemplateAnswer
FromProcess = FromEngine | LogLine | AskTemplate
