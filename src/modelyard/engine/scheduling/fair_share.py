"""How engines that compute at the same time share their device.

Steps of several engines run at once, each on its part of the cores (``engine/scheduling/cores.py``), which is as fast
as taking turns and leaves smaller gaps (docs/performance.md). Where weights or priorities differ, an engine that is
ahead of its part, or less urgent, waits before its next step, for a bounded time. The engines may run in several
processes: the device time of each is in a table that all read (``engine/scheduling/engine_table.py``).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from modelyard.engine.scheduling.cores import threads_of
from modelyard.engine.scheduling.engine_table import GENERATION, SHARE_BYTES, EngineRecord, EngineTable
from modelyard.system.cores import compute_cores

# Upper bound of the time that a step waits for other engines.
MAX_WAIT_S = 1.0

# Seconds of device time, at a weight of 1, by which an engine may be ahead of its part.
LEAD_S = 0.05

# An engine counts as busy for this long after a step: the next one may be about to begin.
RECENT_S = 0.05

# Interval at which a waiting step reads the table again, where another process may end the wait without a wake-up here.
POLL_S = 0.002

# Indices of the fields of a share.
_WEIGHT, _PRIORITY, _VIRTUAL_TIME, _IS_ACTIVE, _LAST_STEP, _THREADS = range(6)


class DeviceShare:
    """One engine's share of its device. Its fields lie in the table of engines while the engine takes part.

    Args:
        weight: part of the device time, relative to the weights of the other engines.
        priority: while this engine computes, engines with a lower priority wait.
        fields: the fields of an engine that takes part already; None: new ones.
        threads: with how many threads the engine can compute at the most.

    Attributes:
        fields: the six floats, by the indices above.
    """

    __slots__ = ("fields",)

    def __init__(
        self, weight: float = 1.0, priority: int = 0, fields: memoryview[float] | None = None, *, threads: int = 1
    ) -> None:
        if fields is None:
            fields = memoryview(bytearray(SHARE_BYTES)).cast("d")
            fields[_WEIGHT], fields[_PRIORITY], fields[_LAST_STEP] = weight, priority, -math.inf
            fields[_THREADS] = threads
        self.fields = fields

    def move(self, fields: memoryview[float]) -> None:
        """Copy the fields to ``fields`` and keep them there from now on."""
        fields[:] = self.fields
        self.fields = fields

    def change(self, weight: float, priority: int) -> None:
        """Set weight and priority; ``Device.set_share`` also announces them to the other engines."""
        self.fields[_WEIGHT], self.fields[_PRIORITY] = weight, priority

    @property
    def weight(self) -> float:
        """Part of the device time, relative to the weights of the other engines."""
        return self.fields[_WEIGHT]

    @property
    def priority(self) -> float:
        """Engines with a lower priority wait while this one computes."""
        return self.fields[_PRIORITY]

    @property
    def threads(self) -> int:
        """With how many threads the engine can compute at the most."""
        return int(self.fields[_THREADS])

    @property
    def virtual_time(self) -> float:
        """Seconds of all its steps, divided by its weight."""
        return self.fields[_VIRTUAL_TIME]

    @virtual_time.setter
    def virtual_time(self, seconds: float) -> None:
        self.fields[_VIRTUAL_TIME] = seconds

    @property
    def is_active(self) -> bool:
        """Whether the engine computes, or waits to."""
        return self.fields[_IS_ACTIVE] != 0.0

    @is_active.setter
    def is_active(self, is_active: bool) -> None:
        self.fields[_IS_ACTIVE] = float(is_active)

    @property
    def last_step(self) -> float:
        """Time at which its last step ended, on the monotonic clock that all processes of a machine share."""
        return self.fields[_LAST_STEP]

    @last_step.setter
    def last_step(self, when: float) -> None:
        self.fields[_LAST_STEP] = when


@dataclass(frozen=True, slots=True)
class _View:
    """The engines that take part, as of one generation of the table.

    Attributes:
        indices: their places in the table.
        shares: their shares.
        is_even: whether all have the same weight and priority.
        is_local: whether all run in this process.
    """

    generation: int | None
    indices: tuple[int, ...] = ()
    shares: tuple[DeviceShare, ...] = ()
    is_even: bool = True
    is_local: bool = True


class Device:
    """The engines on one device. Every method may be called on any thread.

    Args:
        table: the table of the engines of all processes; None: only the engines of this process.
        cores: number of cores on which they compute; None: those on which this process computes fastest.

    Attributes:
        cores: number of cores on which they compute.
    """

    def __init__(self, table: EngineTable | None = None, *, cores: int | None = None) -> None:
        self.table = table or EngineTable()
        self.cores = compute_cores() if cores is None else cores
        self._words = self.table.words
        self._change = threading.Condition()
        self._own: dict[int, DeviceShare] = {}
        self._view = _View(None)

    @property
    def is_busy(self) -> bool:
        """Whether any engine has something to compute."""
        now = time.monotonic()
        return any(is_busy(share, now) for share in self._current().shares)

    def make_share(self, weight: float, priority: int, *, is_on_host: bool) -> DeviceShare:
        """Return the share of a new engine.

        Args:
            weight, priority: see ``DeviceShare``.
            is_on_host: whether the processor computes at least a part of its model.
        """
        return DeviceShare(weight, priority, threads=self.cores if is_on_host else 1)

    @contextmanager
    def joined(self, share: DeviceShare, record: EngineRecord | None = None) -> Iterator[EngineRecord]:
        """Take part in sharing the device while the context is open.

        Args:
            share: the engine's share.
            record: the record that the engine has claimed; None: one is claimed here, and released at the end.

        Raises:
            EngineError: all records are taken.
        """
        own = record or self.table.claim("")
        with self._change:
            self._own[own.index] = share
            share.move(own.share)
            self.table.take_part(own, takes_part=True)
        try:
            yield own
        finally:
            with self._change:
                self.table.take_part(own, takes_part=False)
                share.move(memoryview(bytearray(SHARE_BYTES)).cast("d"))
                del self._own[own.index]
                self._change.notify_all()
            if record is None:
                self.table.release(own)

    def set_share(self, share: DeviceShare, weight: float, priority: int) -> None:
        """Give an engine another weight and priority, and announce the change to all processes."""
        with self._change:
            share.change(weight, priority)
            self.table.announce()
            self._change.notify_all()

    def threads(self, share: DeviceShare) -> int:
        """Return with how many threads an engine that takes part computes its next step."""
        view = self._current()
        if len(view.shares) == 1:
            return share.threads
        now, place = time.monotonic(), 0
        usable: list[int] = []
        for index, each in zip(view.indices, view.shares, strict=True):
            if each is share:
                place = len(usable)
            elif now >= each.last_step + RECENT_S and not self.table.is_computing(index):
                continue
            usable.append(each.threads)
        return threads_of(place, usable, self.cores, int(now))

    @contextmanager
    def step(self, share: DeviceShare) -> Iterator[None]:
        """Compute one step of an engine that takes part, after the wait that its share requires."""
        view = self._view
        if view.generation != self._words[GENERATION]:
            view = self._refresh()
        if view.is_even:
            # The usual case: all shares are equal, so no step waits.
            yield
            share.fields[_LAST_STEP] = time.monotonic()
            return
        self._wait_for_turn(share)
        began = time.monotonic()
        try:
            yield
        finally:
            with self._change:
                share.is_active, share.last_step = False, time.monotonic()
                share.virtual_time += (share.last_step - began) / share.weight
                self._change.notify_all()

    def _wait_for_turn(self, share: DeviceShare) -> None:
        with self._change:
            began = now = time.monotonic()
            view = self._current()
            if not is_busy(share, now):
                # An engine that was idle cannot claim the device time that it left unused.
                busy = [other.virtual_time for other in view.shares if is_busy(other, now)]
                share.virtual_time = max(share.virtual_time, min(busy, default=0.0))
            share.is_active = True
            while now < began + MAX_WAIT_S and waits(share, view.shares, now):
                # Only the clock shows that another engine has become idle: nothing notifies of it.
                self._change.wait(RECENT_S if view.is_local else POLL_S)
                now, view = time.monotonic(), self._current()

    def _current(self) -> _View:
        view = self._view
        return view if view.generation == self._words[GENERATION] else self._refresh()

    def _refresh(self) -> _View:
        # Read the generation first: a change while the shares are read then leads to another refresh.
        generation = self._words[GENERATION]
        pid, found = os.getpid(), list(self.table.shares())
        shares = tuple(self._own.get(index) or DeviceShare(fields=fields) for index, _, fields in found)
        self._view = view = _View(
            generation,
            tuple(index for index, _, _ in found),
            shares,
            is_even=len({(share.weight, share.priority) for share in shares}) <= 1,
            is_local=all(owner == pid for _, owner, _ in found),
        )
        return view


def is_busy(share: DeviceShare, now: float) -> bool:
    """Whether an engine has something to compute."""
    return share.is_active or now < share.last_step + RECENT_S


def waits(share: DeviceShare, shares: tuple[DeviceShare, ...], now: float) -> bool:
    """Whether an engine must wait before its next step."""
    busy = [other for other in shares if other is not share and is_busy(other, now)]
    if any(other.priority > share.priority for other in busy):
        return True
    peers = (other.virtual_time for other in busy if other.priority == share.priority)
    return share.virtual_time > min(peers, default=math.inf) + LEAD_S
