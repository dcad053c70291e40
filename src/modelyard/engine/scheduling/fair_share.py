"""How engines that compute at the same time share their device, where it is not to be in equal parts.

Steps of several engines run at once: the operating system gives each about the same part of the cores, which is as fast
as taking turns and leaves smaller gaps (docs/performance.md). What it does not know of are weights and priorities:
whoever is ahead of its part, or less urgent, waits before its next step, and never for long. The engines may run in
several processes: what each has had is in a table that all of them see (``engine/scheduling/engine_table.py``).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from modelyard.engine.scheduling.engine_table import GENERATION, SHARE_BYTES, EngineRecord, EngineTable

# The longest that a step waits for the sake of other engines.
MAX_WAIT_S = 1.0

# How far an engine may be ahead of its part, in seconds of the device's time for a weight of 1.
LEAD_S = 0.05

# For so long after a step an engine counts as busy: the next one may be on its way.
RECENT_S = 0.05

# How often a step that waits looks again where another process may end the wait, which wakes nobody here.
LOOK_S = 0.002

# Places in a share.
_WEIGHT, _PRIORITY, _HAD, _IS_HERE, _LAST_STEP = range(5)


class DeviceShare:
    """One engine's place at its device. Its facts lie in the table of engines while it takes part.

    Args:
        weight: its part of the time, relative to that of the others.
        priority: while it computes, those with a lower one wait.
        share: the facts of an engine that takes part already; None: those of a new one.

    Attributes:
        share: the facts.
    """

    __slots__ = ("share",)

    def __init__(self, weight: float = 1.0, priority: int = 0, share: memoryview[float] | None = None) -> None:
        if share is None:
            share = memoryview(bytearray(SHARE_BYTES)).cast("d")
            share[_WEIGHT], share[_PRIORITY], share[_LAST_STEP] = weight, priority, -math.inf
        self.share = share

    def move(self, share: memoryview[float]) -> None:
        """Keep the facts in ``share`` from now on."""
        share[:] = self.share
        self.share = share

    def change(self, weight: float, priority: int) -> None:
        """Take another part; ``Device.reseat`` tells the other engines."""
        self.share[_WEIGHT], self.share[_PRIORITY] = weight, priority

    @property
    def weight(self) -> float:
        """Part of the time, relative to that of the others."""
        return self.share[_WEIGHT]

    @property
    def priority(self) -> float:
        """Those with a lower one wait."""
        return self.share[_PRIORITY]

    @property
    def had(self) -> float:
        """Seconds of its steps, divided by its weight."""
        return self.share[_HAD]

    @had.setter
    def had(self, seconds: float) -> None:
        self.share[_HAD] = seconds

    @property
    def is_here(self) -> bool:
        """Whether it computes, or waits to."""
        return self.share[_IS_HERE] != 0.0

    @is_here.setter
    def is_here(self, is_here: bool) -> None:
        self.share[_IS_HERE] = float(is_here)

    @property
    def last_step(self) -> float:
        """When its last step ended, by the monotonic clock, which all processes of a machine have in common."""
        return self.share[_LAST_STEP]

    @last_step.setter
    def last_step(self, when: float) -> None:
        self.share[_LAST_STEP] = when


@dataclass(frozen=True, slots=True)
class _View:
    """Who takes part, as of one generation of the table.

    Attributes:
        is_even: whether all have the same weight and priority.
        is_local: whether all run in this process.
    """

    generation: int | None
    seats: tuple[DeviceShare, ...] = ()
    is_even: bool = True
    is_local: bool = True


class Device:
    """The engines on one device. Every method may be called on any thread.

    Args:
        table: where the engines of all processes meet; None: those of this process alone.
    """

    def __init__(self, table: EngineTable | None = None) -> None:
        self.table = table or EngineTable()
        self._words = self.table.words
        self._change = threading.Condition()
        self._own: dict[int, DeviceShare] = {}
        self._view = _View(None)

    @property
    def is_busy(self) -> bool:
        """Whether some engine has something to compute."""
        now = time.monotonic()
        return any(is_busy(seat, now) for seat in self._current().seats)

    @contextmanager
    def joined(self, seat: DeviceShare, record: EngineRecord | None = None) -> Iterator[EngineRecord]:
        """Take part for so long.

        Args:
            seat: of the engine.
            record: what the engine has claimed of the table; None: one is claimed, and released at the end.

        Raises:
            EngineError: there is no record left.
        """
        own = record or self.table.claim("")
        with self._change:
            self._own[own.index] = seat
            seat.move(own.share)
            self.table.take_part(own, takes_part=True)
        try:
            yield own
        finally:
            with self._change:
                self.table.take_part(own, takes_part=False)
                seat.move(memoryview(bytearray(SHARE_BYTES)).cast("d"))
                del self._own[own.index]
                self._change.notify_all()
            if record is None:
                self.table.release(own)

    def reseat(self, seat: DeviceShare, weight: float, priority: int) -> None:
        """Give an engine another weight and priority."""
        with self._change:
            seat.change(weight, priority)
            self.table.announce()
            self._change.notify_all()

    @contextmanager
    def step(self, seat: DeviceShare) -> Iterator[None]:
        """Compute one step of an engine that takes part, as soon as the others may be made to wait for it."""
        view = self._view
        if view.generation != self._words[GENERATION]:
            view = self._look()
        if view.is_even:
            # Nothing to decide, as nearly always.
            yield
            seat.share[_LAST_STEP] = time.monotonic()
            return
        self._begin(seat)
        began = time.monotonic()
        try:
            yield
        finally:
            with self._change:
                seat.is_here, seat.last_step = False, time.monotonic()
                seat.had += (seat.last_step - began) / seat.weight
                self._change.notify_all()

    def _begin(self, seat: DeviceShare) -> None:
        with self._change:
            began = now = time.monotonic()
            view = self._current()
            if not is_busy(seat, now):
                # Whoever comes back from a pause has missed its time.
                busy = [other.had for other in view.seats if is_busy(other, now)]
                seat.had = max(seat.had, min(busy, default=0.0))
            seat.is_here = True
            while now < began + MAX_WAIT_S and waits(seat, view.seats, now):
                # That another has nothing more to do is noticed by the clock alone.
                self._change.wait(RECENT_S if view.is_local else LOOK_S)
                now, view = time.monotonic(), self._current()

    def _current(self) -> _View:
        view = self._view
        return view if view.generation == self._words[GENERATION] else self._look()

    def _look(self) -> _View:
        # First: what changes while the shares are read gives a new generation, and another look.
        generation = self._words[GENERATION]
        pid, found = os.getpid(), list(self.table.shares())
        seats = tuple(self._own.get(index) or DeviceShare(share=share) for index, _, share in found)
        self._view = view = _View(
            generation,
            seats,
            is_even=len({(seat.weight, seat.priority) for seat in seats}) <= 1,
            is_local=all(owner == pid for _, owner, _ in found),
        )
        return view


def is_busy(seat: DeviceShare, now: float) -> bool:
    """Whether an engine has something to compute."""
    return seat.is_here or now < seat.last_step + RECENT_S


def waits(seat: DeviceShare, seats: tuple[DeviceShare, ...], now: float) -> bool:
    """Whether an engine is to wait before its next step."""
    busy = [other for other in seats if other is not seat and is_busy(other, now)]
    if any(other.priority > seat.priority for other in busy):
        return True
    peers = (other.had for other in busy if other.priority == seat.priority)
    return seat.had > min(peers, default=math.inf) + LEAD_S
