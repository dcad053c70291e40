"""Follows the changes of all models while a client is subscribed to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelyard.errors import ModelyardError
from modelyard.yard.stats.status_broadcaster import StatusChange
from modelyard.yard.yard import Yard

logger = logging.getLogger(__name__)

Listener = Callable[[StatusChange], None]


class ModelChanges:
    """The changes of the models of ``yard``, by one observer for all listeners. Use it on the yard's event loop.

    Args:
        yard: the models.
        on_end: called when the yard ends its observers, because the server stops.
    """

    def __init__(self, yard: Yard, on_end: Callable[[], None]) -> None:
        self._yard, self._on_end = yard, on_end
        self._listeners: set[Listener] = set()
        self._following: asyncio.Task[None] | None = None

    @contextmanager
    def heard(self, listener: Listener) -> Iterator[None]:
        """Call ``listener`` with each change within the context."""
        self._listeners.add(listener)
        self.follow()
        try:
            yield
        finally:
            self._listeners.discard(listener)

    @property
    def is_following(self) -> bool:
        """Whether the changes are followed at the moment."""
        return self._following is not None and not self._following.done()

    def follow(self) -> None:
        """Follow the changes, unless they are followed already."""
        if not self.is_following:
            self._following = asyncio.create_task(self._follow(), name="follow models for MCP")

    async def aclose(self) -> None:
        """Follow no more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self) -> None:
        try:
            with self._yard.monitor.observer() as observer:
                async for change in observer:
                    for listener in tuple(self._listeners):
                        listener(change)
        except ModelyardError as error:
            # There are as many observers as there may be. Calls go on without reports of loads.
            logger.warning("MCP clients do not hear of changes of models at the moment: %s", error)
            return
        self._on_end()
