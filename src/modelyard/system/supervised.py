"""A server's side of its supervisor: how it comes to have one, and what they tell each other."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

from modelyard.system.supervision import RELOAD, SERVING, SOCKETS_VARIABLE, STOP, STOPPING, received

_PROGRAM: Final = (
    "import sys; sys.path.insert(0, {path!r}); from modelyard.system.supervisor import main; main(sys.argv[1:])"
)


class SupervisorLink:
    """The socket between a server and its supervisor, on the server's side."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.setblocking(False)
        # Processes that the server starts must not hold it: its end is how both sides see each other's.
        os.set_inheritable(channel.fileno(), False)

    def report_serving(self) -> None:
        """Connections are accepted from now on: what ends the server from now on is worth another start."""
        self._send(SERVING)

    def report_stopping(self) -> None:
        """The server ends on purpose: its supervisor is to let go of the listening socket, and not to start another."""
        self._send(STOPPING)

    @contextmanager
    def heard(self, stop: Callable[[], None], reload: Callable[[], None], gone: Callable[[], None]) -> Iterator[None]:
        """Have the supervisor heard on the running event loop, for the length of the context.

        Args:
            stop: called each time that the supervisor is told to stop the server.
            reload: called each time that it is told to have the configuration read again.
            gone: called when the supervisor has ended.
        """
        loop = asyncio.get_running_loop()

        def read() -> None:
            messages = received(self._channel)
            if messages is None:
                loop.remove_reader(self._channel)
                gone()
            for number in messages or b"":
                {STOP: stop, RELOAD: reload}[bytes([number])]()

        loop.add_reader(self._channel, read)
        try:
            yield
        finally:
            loop.remove_reader(self._channel)

    def _send(self, message: bytes) -> None:
        # A supervisor that is gone needs no report.
        with suppress(OSError):
            self._channel.send(message)


def can_be_supervised() -> bool:
    """Whether this system and this interpreter have what a supervisor needs: processes of POSIX, and a command line."""
    return hasattr(os, "fork") and hasattr(os, "posix_spawn") and bool(sys.executable) and bool(sys.orig_argv)


def inherited(environment: MutableMapping[str, str]) -> tuple[socket.socket, SupervisorLink] | None:
    """The listening socket and the link that a supervisor has started this process with; None without a supervisor.

    They are taken out of ``environment``: programs that this process starts do not have them.
    """
    written = environment.pop(SOCKETS_VARIABLE, None)
    if written is None:
        return None
    listener, channel = (socket.socket(fileno=int(number)) for number in written.split(","))
    os.set_inheritable(listener.fileno(), False)
    return listener, SupervisorLink(channel)


def put_under_supervisor(listener: socket.socket, *, reloads: bool) -> SupervisorLink:
    """Make this process the supervisor of a server that listens on ``listener``; return in the server's process.

    The process keeps its id, so whoever has started it still waits for, and signals, the right one. Signals that stop
    the server, and SIGHUP where it ``reloads``, are blocked on return, until ``unblock`` is called.
    """
    signals = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if reloads else [])]
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    ours, theirs = socket.socketpair()
    # What is still in a buffer would be written by both processes.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # All that is imported and read by now is there in the fork, too. Threads of others, such as those of an
    # OpenTelemetry exporter, are not: beside these, the supervisor starts the server from its command.
    pid = os.fork() if threading.active_count() == 1 else -1
    if pid != 0:
        _become_supervisor(listener, ours, pid, reloads=reloads)
    ours.close()
    return SupervisorLink(theirs)


def unblock() -> None:
    """Let signals in that were blocked for as long as nothing handled them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def _become_supervisor(listener: socket.socket, channel: socket.socket, pid: int, *, reloads: bool) -> NoReturn:
    for passed_on in (listener, channel):
        os.set_inheritable(passed_on.fileno(), True)
    program = _PROGRAM.format(path=str(Path(__file__).parents[2]))
    arguments = [str(listener.fileno()), str(channel.fileno()), str(pid), "reloads" if reloads else ""]
    command = [sys.executable, *sys.orig_argv[1:]]
    # Isolated, and without site: what the environment has the server import has no business here.
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", program, *arguments, *command])
