"""The server's side of supervision: how a server gets a supervisor, and the messages between them."""

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

from modelyard.system.supervision import FORWARDED, RELOAD, SERVING, SOCKETS_VARIABLE, STOP, STOPPING, received

_PROGRAM: Final = (
    "import sys; sys.path.insert(0, {path!r}); from modelyard.system.supervisor import main; main(sys.argv[1:])"
)


class SupervisorLink:
    """The socket between a server and its supervisor, on the server's side."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.setblocking(False)
        # The server's child processes must not inherit it: each side sees the other's end by the socket's closing.
        os.set_inheritable(channel.fileno(), False)

    def report_serving(self) -> None:
        """Report that connections are accepted, so that a later crash is followed by a restart."""
        self._send(SERVING)

    def report_stopping(self) -> None:
        """Report that the server stops on purpose: the supervisor closes the listening socket and starts no other."""
        self._send(STOPPING)

    @contextmanager
    def heard(self, stop: Callable[[], None], reload: Callable[[], None], gone: Callable[[], None]) -> Iterator[None]:
        """Handle the supervisor's messages on the running event loop while the context is entered.

        Args:
            stop: called for each request to stop the server.
            reload: called for each request to read the configuration again.
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
        # The supervisor may have ended.
        with suppress(OSError):
            self._channel.send(message)


def can_be_supervised() -> bool:
    """Whether the system has POSIX processes and the interpreter a command line, which a supervisor needs."""
    return hasattr(os, "fork") and hasattr(os, "posix_spawn") and bool(sys.executable) and bool(sys.orig_argv)


def inherited(environment: MutableMapping[str, str]) -> tuple[socket.socket, SupervisorLink] | None:
    """Return the listening socket and the link inherited from a supervisor; None without a supervisor.

    Their variable is removed from ``environment``, so that child processes do not use it.
    """
    descriptors = environment.pop(SOCKETS_VARIABLE, None)
    if descriptors is None:
        return None
    listener, channel = (socket.socket(fileno=int(number)) for number in descriptors.split(","))
    os.set_inheritable(listener.fileno(), False)
    return listener, SupervisorLink(channel)


def put_under_supervisor(listener: socket.socket, *, reloads: bool) -> SupervisorLink:
    """Make this process the supervisor of a server that listens on ``listener``; return in the server's process.

    The process keeps its id, so its parent still waits for, and signals, the right process. The signals that it passes
    on are blocked on return, until ``unblock`` is called.

    Args:
        listener: where the server listens.
        reloads: whether the server reads its configuration again on SIGHUP.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    ours, theirs = socket.socketpair()
    # Both processes would write the contents of unflushed buffers.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # The fork keeps everything that is imported and read by now, but no threads. If there are some, such as those of an
    # OpenTelemetry exporter, the supervisor starts the server from its command instead.
    pid = os.fork() if threading.active_count() == 1 else -1
    if pid != 0:
        _become_supervisor(listener, ours, pid, reloads=reloads)
    ours.close()
    return SupervisorLink(theirs)


def unblock() -> None:
    """Unblock the signals that ``put_under_supervisor`` has blocked, once they have handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)


def _become_supervisor(listener: socket.socket, channel: socket.socket, pid: int, *, reloads: bool) -> NoReturn:
    for inherited_socket in (listener, channel):
        os.set_inheritable(inherited_socket.fileno(), True)
    program = _PROGRAM.format(path=str(Path(__file__).parents[2]))
    arguments = [str(listener.fileno()), str(channel.fileno()), str(pid), "reloads" if reloads else ""]
    command = [sys.executable, *sys.orig_argv[1:]]
    # Isolated, and without site: the environment's imports are for the server only.
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", program, *arguments, *command])
