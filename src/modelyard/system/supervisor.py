"""The program that keeps a server's listening socket, and starts the server again when it has died.

It imports the standard library alone, so it takes about nine megabytes, and few faults can reach it. Its decisions are
in ``restarts``, the messages between it and the server in ``supervision``.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from modelyard.system.hang_up import ControllingTerminal
from modelyard.system.restarts import FAILED, End, Service, StartAgain, after_end, mark_serving
from modelyard.system.supervision import FORWARDED, RELOAD, SERVING, SOCKETS_VARIABLE, STOP, STOPPING, received

_STOPS: Final = frozenset({signal.SIGINT, signal.SIGTERM})
_NO_FD: Final = -1
_STDERR: Final = 2


def main(arguments: Sequence[str]) -> None:
    """Supervise a server until it has ended for good, and end with its status.

    Args:
        arguments: file descriptors of the listening socket and of a socket to the server; the server's process id, or
            -1 if it has yet to be started; "reloads" if the server reads its configuration again on SIGHUP, else "";
            the command that starts the server.
    """
    listener, channel, pid, reloads, *command = arguments
    supervisor = Supervisor(command, int(listener), reloads=bool(reloads))
    link = socket.socket(fileno=int(channel))
    if int(pid) > 0:
        supervisor.adopt(int(pid), link)
    else:
        link.close()
    end = supervisor.run()
    if end.message is not None:
        _print(f"error: {end.message}")
    _end_with(end.status)


class Supervisor:
    """Supervises one server, over all its processes. It sets the process's signal handlers, so a process has one.

    Args:
        command: starts the server.
        listener: file descriptor of the listening socket, on which each process of the server accepts.
        reloads: whether the server reads its configuration again on SIGHUP. Otherwise it stops then, and it stops in
            any case when the terminal hangs up.
    """

    def __init__(self, command: list[str], listener: int, *, reloads: bool) -> None:
        self._command = command
        self._listener = listener
        self._reloads = reloads
        self._terminal = ControllingTerminal()
        self._service = Service()
        self._pid: int | None = None
        self._channel: socket.socket | None = None
        self._start_at_s: float | None = time.monotonic()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def adopt(self, pid: int, channel: socket.socket) -> None:
        """Supervise a server that is already running."""
        self._pid, self._channel, self._start_at_s = pid, channel, None
        channel.setblocking(False)
        # The listening socket stays inheritable: it is for every process of the server.
        os.set_inheritable(channel.fileno(), False)

    def run(self) -> End:
        """Restart the server as needed; return when it has ended for good."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for handled in (*FORWARDED, signal.SIGCHLD, signal.SIGTSTP):
            # Signals are read from the wake-up descriptor instead.
            signal.signal(handled, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        while True:
            self._terminal.look()
            # Signals first: a signal that also ended the server arrives here before the news of its end.
            for number in self._signals():
                self._take_signal(number)
            self._read_channel()
            end = self._reap()
            if end is not None:
                return end
            if self._pid is None and self._service.is_stop_asked:
                return End(0)
            if self._start_at_s is not None and time.monotonic() >= self._start_at_s:
                end = self._start()
                if end is not None:
                    return end
            self._wait()

    def _wait(self) -> None:
        """Sleep until a signal or a message arrives, or a start is due."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        self._terminal.watch(poll)
        if self._channel is not None:
            poll.register(self._channel, select.POLLIN)
        left_s = None if self._start_at_s is None else max(0.0, self._start_at_s - time.monotonic())
        # Rounded up, so that the start is due when the wait is over.
        poll.poll(None if left_s is None else int(left_s * 1000) + 1)

    def _signals(self) -> bytes:
        return received(self._woken) or b""

    def _take_signal(self, number: int) -> None:
        if number in _STOPS:
            self._expect_stop()
            self._send(STOP)
        elif number == signal.SIGHUP:
            self._take_hang_up()
        elif number == signal.SIGTSTP:
            self._suspend()

    def _take_hang_up(self) -> None:
        """Have the server reload, or stop where that is what a hang-up is for. The shell may send it again."""
        if self._terminal.is_hang_up() or not (self._reloads or self._terminal.ignores_hang_ups):
            if not self._service.is_stop_asked:
                self._expect_stop()
                self._send(STOP)
        elif self._reloads:
            self._send(RELOAD)

    def _expect_stop(self) -> None:
        """Close the listening socket, so that clients are refused, and do not wait, once the server closes it, too."""
        self._service = replace(self._service, is_stop_asked=True)
        if self._listener != _NO_FD:
            os.close(self._listener)
            self._listener = _NO_FD

    def _suspend(self) -> None:
        """Stop the server and this process until SIGCONT, as Ctrl-Z in a terminal does."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTSTP)
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        if self._pid is not None:
            os.kill(self._pid, signal.SIGCONT)

    def _send(self, message: bytes) -> None:
        if self._channel is not None:
            # The server has ended, or has thousands of unread messages.
            with suppress(OSError):
                self._channel.send(message)

    def _read_channel(self) -> None:
        if self._channel is None:
            return
        messages = received(self._channel)
        if messages is None:
            self._channel.close()
            self._channel = None
            return
        if SERVING in messages:
            self._service = mark_serving(self._service)
        if STOPPING in messages:
            self._expect_stop()

    def _reap(self) -> End | None:
        """Collect ended processes. The first process of a container also inherits orphans of other processes."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid == self._pid:
                # The messages that it sent before it died have arrived by now.
                self._read_channel()
                return self._follow(os.waitstatus_to_exitcode(status))

    def _follow(self, status: int) -> End | None:
        self._pid = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        now_s = time.monotonic()
        self._service, decision = after_end(self._service, status, now_s)
        if isinstance(decision, StartAgain):
            _log(decision.message)
            self._start_at_s = now_s + decision.delay_s
            return None
        return decision

    def _start(self) -> End | None:
        self._start_at_s = None
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            environment = {**os.environ, SOCKETS_VARIABLE: f"{self._listener},{theirs.fileno()}"}
            try:
                self._pid = os.posix_spawn(self._command[0], self._command, environment, setsigmask=FORWARDED)
            except OSError as error:
                ours.close()
                _log(f"The server cannot be started: {self._command[0]}: {error.strerror}")
                return self._follow(FAILED)
        self._channel = ours
        return None


def _log(message: str) -> None:
    """Write a line in the format of the server's log. Importing ``logging`` would take more memory than the rest."""
    now_s = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now_s))
    _print(f"{stamp},{int(now_s % 1 * 1000):03d} ERROR {message}")


def _print(line: str) -> None:
    # The reader of the log may be gone, and the supervisor still goes on.
    with suppress(OSError):
        os.write(_STDERR, f"{line}\n".encode("utf-8", "replace"))


def _end_with(status: int) -> None:
    """End this process as the server's ended: with the same status, or by the same signal."""
    if status < 0:
        # No core file: the server's process has written its own.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
        os.kill(os.getpid(), -status)
        # Still running: the kernel does not kill the first process of a container by its own signals.
        status = 128 - status
    sys.exit(status)
