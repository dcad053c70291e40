"""What the yard needs of engines, and of the source that makes them."""

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
        """Send a message without blocking."""

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of its thread; return whether it has ended."""


class ModelFilesReplaced(Exception):
    """The files of a model were replaced after it was sized, and have to be sized again.

    Attributes:
        file: name of the first file that was replaced.
    """

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.file = file


class EngineSource(Protocol):
    """Makes engines. An error of either method fails the load, with its text as the reason."""

    async def size(self, model: str) -> Footprint:
        """Return the memory that the model will take."""

    async def make(self, model: str, publish: Publish) -> EngineHandle:
        """Return an engine of the model, not yet started.

        Raises:
            ModelFilesReplaced: the files are not those that were sized.
        """
