"""A process that is no child of this one: it is ended by a signal and awaited, also if its id is used again."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from modelyard.system.process_use import process_use

_POLL_S: Final = 0.05


class OtherProcess:
    """A process, held by a descriptor where the system has such (Linux).

    Args:
        pid: its id.
        descriptor: of ``pidfd_open``; None: the system has none.
    """

    def __init__(self, pid: int, descriptor: int | None) -> None:
        self._pid, self._descriptor = pid, descriptor

    def terminate(self) -> bool:
        """Send SIGTERM; return whether the process was still there.

        Raises:
            PermissionError: it belongs to another user.
        """
        try:
            if self._descriptor is None:
                os.kill(self._pid, signal.SIGTERM)
            else:
                signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)
        except ProcessLookupError:
            return False
        return True

    def ends_within(self, timeout_s: float) -> bool:
        """Wait until the process has ended, at most ``timeout_s``; return whether it has."""
        if self._descriptor is not None:
            return bool(select.select([self._descriptor], [], [], timeout_s)[0])
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                os.kill(self._pid, 0)
            except OSError:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)


@contextmanager
def other_process(pid: int, start: int | None) -> Iterator[OtherProcess | None]:
    """Enter with the process ``pid`` that started at ``start``, in ticks of the kernel; with None if it has ended.

    Where the system does not tell when processes start, ``start`` is None, and any process of that id counts.
    """
    descriptor = None
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            yield None
            return
        except OSError:
            # An old kernel, or a sandbox that forbids it.
            descriptor = None
    try:
        # After the descriptor is open, it keeps naming the process that is looked at here.
        use = process_use(pid, has_threads=False)
        is_it = start is None or (use is not None and use.start == start)
        yield OtherProcess(pid, descriptor) if is_it else None
    finally:
        if descriptor is not None:
            os.close(descriptor)
