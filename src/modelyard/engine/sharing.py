"""How engines that compute at the same time share their device, where it is not to be in equal parts.

Steps of several engines run at once: the operating system gives each about the same part of the cores, which is as fast
as taking turns and leaves smaller gaps (docs/performance.md). What it does not know of are weights and priorities:
whoever is ahead of its part, or less urgent, waits before its next step, and never for long.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# The longest that a step waits for the sake of other engines.
LONGEST_WAIT_S = 1.0

# How far an engine may be ahead of its part, in seconds of the device's time for a weight of 1.
LEAD_S = 0.05

# For so long after a step an engine counts as busy: the next one may be on its way.
RECENT_S = 0.05


class Seat:
    """One engine's place at its device.

    Args:
        weight: its part of the time, relative to that of the others.
        priority: while it computes, those with a lower one wait.
    """

    __slots__ = ("had", "is_here", "last_step", "priority", "weight")

    def __init__(self, weight: float = 1.0, priority: int = 0) -> None:
        self.weight = weight
        self.priority = priority
        # Time of its steps, divided by its weight.
        self.had = 0.0
        # Whether it computes, or waits to.
        self.is_here = False
        self.last_step = -math.inf


class Device:
    """The engines on one device. Every method may be called on any thread."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._seats: tuple[Seat, ...] = ()

    @property
    def is_busy(self) -> bool:
        """Whether some engine has something to compute."""
        now = time.monotonic()
        return any(is_busy(seat, now) for seat in self._seats)

    @contextmanager
    def joined(self, seat: Seat) -> Iterator[None]:
        """Take part for so long."""
        with self._change:
            self._seats = (*self._seats, seat)
        try:
            yield
        finally:
            with self._change:
                self._seats = tuple(other for other in self._seats if other is not seat)
                self._change.notify_all()

    @contextmanager
    def step(self, seat: Seat) -> Iterator[None]:
        """Compute one step, as soon as the others may be made to wait for it."""
        if all(other.weight == seat.weight and other.priority == seat.priority for other in self._seats):
            # Nothing to decide, as nearly always.
            yield
            seat.last_step = time.monotonic()
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

    def _begin(self, seat: Seat) -> None:
        with self._change:
            began = now = time.monotonic()
            if not is_busy(seat, now):
                # Whoever comes back from a pause has missed its time.
                busy = [other.had for other in self._seats if is_busy(other, now)]
                seat.had = max(seat.had, min(busy, default=0.0))
            seat.is_here = True
            while now < began + LONGEST_WAIT_S and waits(seat, self._seats, now):
                # That another has nothing more to do is noticed by the clock alone.
                self._change.wait(RECENT_S)
                now = time.monotonic()


def is_busy(seat: Seat, now: float) -> bool:
    """Whether an engine has something to compute."""
    return seat.is_here or now < seat.last_step + RECENT_S


def waits(seat: Seat, seats: tuple[Seat, ...], now: float) -> bool:
    """Whether an engine is to wait before its next step."""
    busy = [other for other in seats if other is not seat and is_busy(other, now)]
    if any(other.priority > seat.priority for other in busy):
        return True
    peers = (other.had for other in busy if other.priority == seat.priority)
    return seat.had > min(peers, default=math.inf) + LEAD_S
