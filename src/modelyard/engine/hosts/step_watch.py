"""Checks the steps of all engines of a server every few seconds, and reports those that do not end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from modelyard.engine.hosts.stalls import Observed, StallBounds, observe, stall_reason
from modelyard.engine.scheduling.engine_table import EngineActivity, EngineTable
from modelyard.system.process_use import ProcessUse, process_use

POLL_S: Final = 5.0
"""Interval of the checks. A check takes some 20 us for an idle engine and 0.3 ms for one that computes."""

# Limit of the interval that is counted, as a multiple of POLL_S: after a longer one this process had no core, was
# stopped, or the machine slept.
_MAX_GAPS: Final = 2.0
_END_S: Final = 5.0

_DEFAULT_BOUNDS: Final = StallBounds()


class StepWatch:
    """Watches the engines of one table. Thread-safe.

    Args:
        table: the server's table, in which the engines of its other processes have records, too.
        on_stall: called on the watch's thread, once for each step that hangs, with the reason.
        bounds: limits of an engine.
        poll_s: interval of the checks.
    """

    def __init__(
        self,
        table: EngineTable,
        on_stall: Callable[[EngineActivity, str], None],
        bounds: StallBounds = _DEFAULT_BOUNDS,
        poll_s: float = POLL_S,
    ) -> None:
        self._table, self._on_stall, self._bounds, self._look_s = table, on_stall, bounds, poll_s
        self._seen: dict[int, Observed] = {}
        # Index in the table -> start of the process and number of the step that was reported.
        self._reported: dict[int, tuple[int, int | None]] = {}
        self._is_closed = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to check, once."""
        with self._starting:
            if self._thread is None and not self._is_closed.is_set():
                self._thread = threading.Thread(target=self._run, name="steps of engines", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop to check. Idempotent."""
        self._is_closed.set()
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_END_S)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._is_closed.wait(self._look_s):
            now = time.monotonic()
            self.check(min(now - last, _MAX_GAPS * self._look_s))
            last = now

    def check(self, passed_s: float) -> None:
        """Check all engines, ``passed_s`` after the last check."""
        seen: dict[int, Observed] = {}
        for index, activity in self._table.records_by_index().items():
            use = self._use(self._seen.get(index), activity, passed_s)
            if use is None:
                continue
            seen[index] = observed = observe(self._seen.get(index), activity, use, passed_s)
            reason = stall_reason(observed, activity, self._bounds)
            if reason is None:
                self._reported.pop(index, None)
            elif self._reported.get(index) != (use.start, observed.step):
                self._reported[index] = use.start, observed.step
                self._on_stall(activity, reason)
        self._seen = seen

    @staticmethod
    def _use(before: Observed | None, activity: EngineActivity, passed_s: float) -> ProcessUse | None:
        if activity.pid != os.getpid():
            return process_use(activity.pid, has_threads=activity.doing == "computing")
        # The CPU time of an engine on a thread cannot be separated from the rest of this process. Wall-clock time
        # stands in for it, because a stall on a thread is only reported.
        used_s = 0.0 if before is None else before.use.cpu_s + passed_s
        return ProcessUse(0, used_s, 0, is_asleep=False, is_stopped=False)
