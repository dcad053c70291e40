"""Starts processes of engines as forks of this process, which has everything imported.

    python -m modelyard.engine.hosts.spawner_program DESCRIPTOR

A fork takes 2 ms and one megabyte, a new interpreter 0.7 s and thirty megabytes. This process runs a single thread and
computes nothing, so that it can be forked. It reads requests from the socket at DESCRIPTOR: one line of JSON, the setup
of the process, with the descriptors of its connection and of its standard error. It answers with the id of the process,
and reports the exit status of each. It ends when the server does.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from modelyard.errors import LlamaCppUnusable

_MAX_LINE_BYTES: Final = 65536
_DESCRIPTORS: Final = 2

Run = Callable[[socket.socket, dict[str, Any]], None]


def main() -> None:
    """Serve requests until the socket is closed."""
    # Imported before the first request, so that forks need not import it.
    try:
        from modelyard.engine.hosts import engine_program
    except LlamaCppUnusable:
        # The server finds the same, and reports it.
        sys.exit(1)

    control = socket.socket(fileno=int(sys.argv[1]))
    # A service manager signals all processes of a service, but engines stop only with a message of the server.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    # The garbage collector would write to, and so copy, the pages that all forks share.
    gc.freeze()
    _serve(control, woken, engine_program.main)


def _serve(control: socket.socket, woken: socket.socket, run: Run) -> None:
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if woken in ready:
            _drain(woken)
            for pid, status in _reap():
                _report(control, {"ended": pid, "status": status})
        if control in ready:
            line, descriptors, _, _ = socket.recv_fds(control, _MAX_LINE_BYTES, _DESCRIPTORS)
            if not line:
                return
            pid = os.fork()
            if not pid:
                selector.close()
                _run_child(json.loads(line), descriptors, (control, woken), run)
            for descriptor in descriptors:
                os.close(descriptor)
            _report(control, {"started": pid})


def _run_child(
    setup: dict[str, Any], descriptors: list[int], inherited: tuple[socket.socket, ...], run: Run
) -> NoReturn:
    """Run engines in a fork of this process, and end the fork."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in inherited:
            end.close()
        connection, errors = descriptors
        os.dup2(errors, 2)
        os.close(errors)
        run(socket.socket(fileno=connection), setup)
        status = 0
    finally:
        # Skip the exit handlers of the process that was forked.
        os._exit(status)


def _drain(woken: socket.socket) -> None:
    try:
        while woken.recv(4096):
            pass
    except BlockingIOError:
        return


def _reap() -> list[tuple[int, int]]:
    """Return the processes that have ended since the last call, with their statuses; a signal is negative."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found.append((pid, os.waitstatus_to_exitcode(status)))


def _report(control: socket.socket, report: dict[str, int]) -> None:
    try:
        control.sendall(json.dumps(report).encode() + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        # The server is gone; the next read from the socket ends this process.
        return


if __name__ == "__main__":
    main()
