"""Engines on one device take turns: one step at a time, each with the whole device.

Two engines that compute at once hinder each other at every barrier of their threads; one after the other each runs at
full speed, and none starves. Who goes next: whoever has waited too long, then the higher priority, then whoever has had
the least time for its weight.

Source: start-time fair queueing, P. Goyal et al., 1996.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# After which an engine of lower priority goes first all the same.
LONGEST_WAIT_S = 1.0

# After which an engine goes without its turn: whoever has it hangs, and nobody else is to.
HANGING_S = 20.0

# How many of its own steps an engine that decodes is made to wait, at most, for a step with prompts of another.
PATIENCE = 1.25

# An engine whose last step is longer ago does not count as busy.
_RECENT_S = 0.25


class Seat:
    """One engine's place among those that share a device.

    Args:
        weight: its part of the device's time, relative to that of the others.
        priority: while it computes, those with a lower one wait.
    """

    __slots__ = ("decode_s", "had", "last_step", "priority", "since", "weight")

    def __init__(self, weight: float = 1.0, priority: int = 0) -> None:
        self.weight = weight
        self.priority = priority
        # Time that it has had, divided by its weight; those who come back from a pause have missed theirs.
        self.had = 0.0
        self.since = 0.0
        # Seconds of its steps that only decode; 0 while it has none. And when the last one ended.
        self.decode_s = 0.0
        self.last_step = -math.inf


class Turns:
    """The turns of one device. Every method may be called on any thread."""

    def __init__(self) -> None:
        self._change = threading.Condition(threading.Lock())
        self._holder: Seat | None = None
        self._waiting: list[Seat] = []
        self._seats: list[Seat] = []
        self._now = 0.0

    @contextmanager
    def joined(self, seat: Seat) -> Iterator[None]:
        """Take part for so long."""
        with self._change:
            self._seats = [*self._seats, seat]
        try:
            yield
        finally:
            with self._change:
                self._seats = [other for other in self._seats if other is not seat]

    @contextmanager
    def turn(self, seat: Seat) -> Iterator[None]:
        """Compute one step, when it is this engine's turn."""
        self._begin(seat)
        began = time.monotonic()
        try:
            yield
        finally:
            self._end(seat, began)

    def patience_s(self, seat: Seat) -> float:
        """How long a step may be that others wait for: by their own steps, where they decode; else infinite."""
        if len(self._seats) < 2:
            return math.inf
        with self._change:
            recent = time.monotonic() - _RECENT_S
            busy = {self._holder, *self._waiting, *(other for other in self._seats if other.last_step > recent)}
        others = (other for other in busy if other is not None and other is not seat and other.decode_s)
        return min((PATIENCE * other.decode_s * seat.weight / other.weight for other in others), default=math.inf)

    def _begin(self, seat: Seat) -> None:
        with self._change:
            seat.since = time.monotonic()
            seat.had = max(seat.had, self._now)
            if self._holder is None and not self._waiting:
                self._holder = seat
                return
            self._waiting.append(seat)
            if self._holder is None:
                self._choose()
            if not self._change.wait_for(lambda: self._holder is seat, HANGING_S):
                self._waiting.remove(seat)
                self._holder = seat

    def _end(self, seat: Seat, began: float) -> None:
        with self._change:
            seat.last_step = time.monotonic()
            self._now = max(self._now, seat.had)
            seat.had += (seat.last_step - began) / seat.weight
            if self._holder is seat:
                self._holder = None
                self._choose()

    def _choose(self) -> None:
        if self._waiting:
            now = time.monotonic()
            self._holder = min(self._waiting, key=lambda seat: order(seat, now))
            self._waiting.remove(self._holder)
            self._change.notify_all()


def order(seat: Seat, now: float) -> tuple[bool, int, float]:
    """Where a waiting engine stands; the lowest goes next."""
    return now - seat.since < LONGEST_WAIT_S, -seat.priority, seat.had
