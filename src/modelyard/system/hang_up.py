"""Tells the hang-up of the controlling terminal from a SIGHUP that a program sends, such as ``kill -HUP``.

A terminal that is closed sends SIGHUP to the programs in its foreground, and its shell sends it to the others. Programs
end then, unless SIGHUP is ignored, as ``nohup`` has it, or they have no terminal, as below setsid and systemd.

Source: Linux, drivers/tty/tty_io.c, __tty_hangup: descriptors of the terminal fail before the signals are sent.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

# Seconds after the end of the terminal in which its shell passes the hang-up on. A later SIGHUP is another program's:
# a server that was disowned goes on without its terminal.
_PASSED_ON_S: Final = 10.0


class ControllingTerminal:
    """The controlling terminal of this process.

    Attributes:
        ignores_hang_ups: whether SIGHUP was ignored when the process started.
        descriptor: of the terminal, until it has hung up; None where there is none.
    """

    def __init__(self) -> None:
        self.ignores_hang_ups = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self.descriptor: int | None = None
        self._hung_up_s: float | None = None
        if not self.ignores_hang_ups:
            # There is none.
            with suppress(OSError):
                self.descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)

    def look(self) -> None:
        """Record whether the terminal has hung up. To be called when ``watch`` is ready, too."""
        if self.descriptor is None:
            return
        try:
            os.tcgetpgrp(self.descriptor)
        except OSError:
            self._hung_up_s = time.monotonic()
            self.close()

    def is_hang_up(self) -> bool:
        """Whether a SIGHUP that has just arrived is the hang-up of the terminal."""
        self.look()
        return self._hung_up_s is not None and time.monotonic() - self._hung_up_s < _PASSED_ON_S

    def watch(self, poll: select.poll) -> None:
        """Have ``poll`` report the hang-up, and nothing that is typed."""
        if self.descriptor is not None:
            poll.register(self.descriptor, 0)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


@contextmanager
def watched_terminal(loop: AbstractEventLoop) -> Iterator[ControllingTerminal]:
    """Enter with the controlling terminal, whose hang-up ``loop`` has recorded when it happens."""
    terminal = ControllingTerminal()
    try:
        # Without epoll, the hang-up is recorded when its signal arrives.
        if terminal.descriptor is None or not hasattr(select, "epoll"):
            yield terminal
            return
        with select.epoll() as hang_up:
            # The loop itself would report what is typed, again and again, as nothing reads it.
            hang_up.register(terminal.descriptor, 0)

            def look() -> None:
                terminal.look()
                loop.remove_reader(hang_up.fileno())

            loop.add_reader(hang_up.fileno(), look)
            try:
                yield terminal
            finally:
                loop.remove_reader(hang_up.fileno())
    finally:
        terminal.close()
