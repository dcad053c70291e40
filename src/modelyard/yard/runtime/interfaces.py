"""What the yard needs of engines, and of the source that makes them."""

from __future__ import annotations

from typing import Protocol

from modelyard.protocol.events import Publish
from modelyard.protocol.messages import Message
from modelyard.protocol.placement import Placement
from modelyard.yard.memory.footprint import Choices, Footprint


class EngineHandle(Protocol):
    """What the yard needs of an engine.

    It is an ``Engine`` (engine/engine.py) on a thread of this process, or a ``ProcessEngine``
    (engine/hosts/process_engine.py) on a thread of another one.
    """

    def start(self) -> None:
        """Begin to load."""

    def send(self, message: Message) -> None:
        """Send a message without blocking."""

    def join(self, timeout_s: float) -> bool:
        """Wait until it has ended, after its last event; return whether it has."""


class ModelFilesReplaced(Exception):
    """The files of a model were replaced after it was sized, and have to be sized again.

    Attributes:
        file: name of the first file that was replaced.
    """

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.file = file


class ModelOutgrown(Exception):
    """A model takes more of a device than it was sized with, so where it is put has to be decided again.

    Raised once at most for the same model, files, settings and placement.

    Attributes:
        footprint: of the model in the placement that it was to be loaded in.
    """

    def __init__(self, footprint: Footprint) -> None:
        super().__init__(footprint)
        self.footprint = footprint


class EngineSource(Protocol):
    """Makes engines. An error of the first two methods fails the load, with its text as the reason."""

    async def size(self, model: str) -> Choices:
        """Return the memory that the model will take, in each placement that it may have."""

    async def make(self, model: str, publish: Publish, placement: Placement, cells: int) -> EngineHandle:
        """Return an engine of the model in ``placement``, not yet started.

        Its context begins with so many KV cells; 0: with all that it may have.

        Raises:
            ModelFilesReplaced: the files are not those that were sized.
            ModelOutgrown: the model takes more there than it was sized with.
        """

    def read_ahead(self, model: str) -> None:
        """Read the files of a model that waits for memory, so that its load finds them cached. Returns at once."""
