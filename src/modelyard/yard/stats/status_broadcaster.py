"""Publishes changes of models to observers: every change of load state, and the progress of loads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.errors import TooManyConnections
from modelyard.hub.sources.listing import Progress
from modelyard.yard.residency.state import LoadState, ModelState, Residency

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMING = frozenset({LoadState.SIZING, LoadState.LOADING})

# An observer with more unread changes is ended, to bound the memory that they take.
MAX_UNREAD = 10_000
# Each observer holds a connection without a time limit.
MAX_OBSERVERS = 64


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A change of a model.

    Attributes:
        model: its id.
        load_state: its load state; None: it was removed.
        progress: from 0 to 1, of the weights that are read while it loads, or of ``step``.
        reason: why it failed; None where it did not.
        step: what is done to its files before it loads, such as "downloading".
        restarts, last_death: how many of its engines have died, and why the last one did; None unless the change is
            the death of an engine.
    """

    model: str
    load_state: LoadState | None
    progress: float | None = None
    reason: str | None = None
    step: str | None = None
    restarts: int | None = None
    last_death: str | None = None


class Observer:
    """A reader of changes. Iterating it ends when the yard closes, or when too many changes are unread."""

    def __init__(self) -> None:
        self._unread: deque[StatusChange] = deque()
        self._wake = asyncio.Event()
        self._is_over = False

    def put(self, change: StatusChange) -> None:
        """Add a change. Progress that was not read yet is replaced by newer progress of the same model."""
        if self._is_over:
            # Changes after a gap would not make sense to the reader.
            return
        last = self._unread[-1] if self._unread else None
        if (
            last is not None
            and last.progress is not None
            and last.model == change.model
            and change.progress is not None
        ):
            self._unread.pop()
        if len(self._unread) >= MAX_UNREAD:
            self.end()
        else:
            self._unread.append(change)
            self._wake.set()

    def end(self) -> None:
        """End the iteration once all unread changes are read."""
        self._is_over = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[StatusChange]:
        while True:
            while self._unread:
                yield self._unread.popleft()
            if self._is_over:
                return
            self._wake.clear()
            await self._wake.wait()


class StatusBroadcaster:
    """All observers of one yard. Use it on the yard's event loop."""

    def __init__(self) -> None:
        self._observers: set[Observer] = set()
        self._is_closed = False

    @contextmanager
    def observer(self) -> Iterator[Observer]:
        """Enter with an observer of all changes from now on.

        Raises:
            TooManyConnections: there are MAX_OBSERVERS already.
        """
        if len(self._observers) >= MAX_OBSERVERS:
            raise TooManyConnections(f"{MAX_OBSERVERS} clients follow the events of models already.")
        observer = Observer()
        if self._is_closed:
            observer.end()
        self._observers.add(observer)
        try:
            yield observer
        finally:
            self._observers.discard(observer)

    def compare(self, before: Residency, after: Residency) -> None:
        """Publish every model whose load state has changed, or whose engine has died."""
        if not self._observers:
            return

        def order(name: str) -> tuple[bool, str]:
            """Sort models that are unloaded before those that are loaded in their place."""
            return name in after.models and after.models[name].load_state in _COMING, name

        # A model that is at rest in both states can only have been added or removed.
        names = before.active | after.active | (before.models.keys() ^ after.models.keys())
        for name in sorted(names, key=order):
            old, new = before.models.get(name), after.models.get(name)
            if new is None:
                assert old is not None
                self._publish(StatusChange(old.policy.name, None))
            elif old is not None and old.restarts != new.restarts:
                died = StatusChange(
                    new.policy.name, new.load_state, None, new.failure, None, new.restarts, new.last_death
                )
                self._publish(died)
            elif old is None or old.load_state is not new.load_state:
                self._publish(StatusChange(new.policy.name, new.load_state, reason=new.failure))

    def progress(self, model: str, fraction: float) -> None:
        """Publish the progress of the load of ``model``."""
        self._publish(StatusChange(model, LoadState.LOADING, progress=fraction))

    def preparing(self, model: str, progress: Progress) -> None:
        """Publish the progress of preparing the files of ``model``."""
        self._publish(StatusChange(model, LoadState.SIZING, progress=progress.fraction, step=progress.step))

    def prepared(self, model: ModelState) -> None:
        """Publish the load state of ``model`` again, which the progress of preparing its files has covered."""
        self._publish(StatusChange(model.policy.name, model.load_state, reason=model.failure))

    def close(self) -> int:
        """End all observers, and those that come later at once; return how many were there."""
        self._is_closed = True
        return self.dismiss()

    def dismiss(self) -> int:
        """End all present observers; return their number."""
        for observer in self._observers:
            observer.end()
        return len(self._observers)

    def _publish(self, change: StatusChange) -> None:
        for observer in self._observers:
            observer.put(change)
