"""What the yard needs of engines, and of the workshop that they come from."""

from __future__ import annotations

from typing import Protocol

from modelyard.protocol.events import Publish
from modelyard.protocol.messages import Message
from modelyard.yard.memory.footprint import Footprint


class EngineHandle(Protocol):
    """What the yard needs of an engine; see ``modelyard.engine.engine.Engine``."""

    def start(self) -> None:
        """Begin to load."""

    def send(self, message: Message) -> None:
        """Hand over a message, without blocking."""

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; whether it has ended."""


class ModelFilesReplaced(Exception):
    """The files of a model are not those that were sized: they are to be sized again.

    Attributes:
        file: name of the first of them that is another one.
    """

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.file = file


class EngineSource(Protocol):
    """Where engines come from. Errors of both fail the load, with their text as the reason."""

    async def size(self, model: str) -> Footprint:
        """What the model will take."""

    async def make(self, model: str, publish: Publish) -> EngineHandle:
        """Its engine, not yet started.

        Raises:
            ModelFilesReplaced: what was sized is not what would be loaded.
        """
