"""Starts processes of engines, each as a copy of this one, which has everything imported.

    python -m modelyard.engine.hosts.spawner_program DESCRIPTOR

A copy takes 2 ms and one megabyte, where a new interpreter takes 0.7 s and thirty. This process runs one thread and
computes nothing, so that it can be copied. It reads requests from the socket at DESCRIPTOR: one line of JSON, which is
how the process is to be set up, with the descriptors of its connection and of its standard error. It answers with the
number of the process, and says how each one ended. It ends when the server does.
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

_MAX_LINE_BYTES: Final = 65536
_DESCRIPTORS: Final = 2

Run = Callable[[socket.socket, dict[str, Any]], None]


def main() -> None:
    """Serve requests until the socket is closed."""
    # What engines need, before the first of them is asked for.
    from modelyard.engine.hosts import engine_program

    control = socket.socket(fileno=int(sys.argv[1]))
    # They are of the server's process: it says when an engine is to stop. Systems that stop a service tell them all.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    # The collector would touch, and so copy, what all of them share.
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
            for pid, status in _ended():
                _say(control, {"ended": pid, "status": status})
        if control in ready:
            line, descriptors, _, _ = socket.recv_fds(control, _MAX_LINE_BYTES, _DESCRIPTORS)
            if not line:
                return
            pid = os.fork()
            if not pid:
                selector.close()
                _become(json.loads(line), descriptors, (control, woken), run)
            for descriptor in descriptors:
                os.close(descriptor)
            _say(control, {"started": pid})


def _become(setup: dict[str, Any], descriptors: list[int], inherited: tuple[socket.socket, ...], run: Run) -> NoReturn:
    """Be a process of engines from here on."""
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
        # Not through what the copied process would do at its end.
        os._exit(status)


def _drain(woken: socket.socket) -> None:
    try:
        while woken.recv(4096):
            pass
    except BlockingIOError:
        return


def _ended() -> list[tuple[int, int]]:
    """Processes that have ended since the last look, with their exit statuses; a signal as a negative number."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found.append((pid, os.waitstatus_to_exitcode(status)))


def _say(control: socket.socket, said: dict[str, int]) -> None:
    try:
        control.sendall(json.dumps(said).encode() + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        # The server is gone; the next look at the socket ends this process.
        return


if __name__ == "__main__":
    main()
