"""The part inside a bounded process that all its programs share; ``pool`` is the part outside.

A program reads requests from the socket that is its standard input, and writes the answers there: JSON after its length
as 8 bytes, big endian. A file descriptor may come with the length. The program ends when the socket closes. It imports
as little as possible, because a request waits for its start.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from modelyard.system.bounded.processor_time import limit_processor_time

if TYPE_CHECKING:
    import socket

_HEADER_BYTES: Final = 8
# JSON can contain lone surrogates, which pass unchanged.
_ENCODING: Final = ("utf-8", "surrogatepass")
_SOCKET: Final = 0
_READ_BYTES: Final = 1 << 20

# Limit of the memory that a process keeps after a request. Beyond it the process ends, and a fresh one replaces it.
_MAX_GROWTH_BYTES: Final = 32 << 20

# Time beyond the limit after which the kernel kills the process, for calls into C that do not return.
_GRACE_S: Final = 0.25


def address_space() -> int:
    """Return the bytes of this process's address space; 0 if the system has no ``/proc``."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (pathlib takes 5 ms to import)
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def limit(memory_bytes: int, time_s: float) -> None:
    """Limit this process, until ``lift_limits``.

    Args:
        memory_bytes: limit of its address space; 0: no limit.
        time_s: limit of processor time from now on. The kernel ends the process up to a second later.
    """
    if memory_bytes:
        _set(resource.RLIMIT_AS, memory_bytes)
    limit_processor_time(time_s + _GRACE_S)


def lift_limits() -> None:
    """Remove the limits."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (hard, hard))


def _set(kind: int, soft: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _receive(size: int) -> bytes | None:
    """Read ``size`` bytes from the socket; None if it was closed."""
    pieces = []
    while size:
        piece = os.read(_SOCKET, min(size, _READ_BYTES))
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _send(answer: dict[str, Any]) -> None:
    body = json.dumps(answer, ensure_ascii=False).encode(*_ENCODING)
    message = memoryview(len(body).to_bytes(_HEADER_BYTES) + body)
    while message:
        message = message[os.write(_SOCKET, message) :]


def serve(answer: Callable[[dict[str, Any], int], dict[str, Any]], *, takes_files: bool = False) -> None:
    """Answer requests until the socket closes, then end the process.

    Args:
        answer: returns the answer to a request, given the request and its size in bytes. The process ends after an
            answer whose ``fault`` is ``stopped``, because interrupted code may have left inconsistent state.
        takes_files: whether requests come with a file, whose descriptor is the request's ``file`` until it is answered.
    """
    # The parent handles Ctrl-C. A signal to the whole service also reaches the server, whose last requests may still
    # need this process.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    _set(resource.RLIMIT_CORE, 0)
    # Prints the current line when the process crashes, or when the kernel or the parent ends it.
    faulthandler.enable(all_threads=False)
    for ending in (signal.SIGXCPU, signal.SIGUSR1):
        faulthandler.register(ending, all_threads=False, chain=True)
    gc.freeze()
    # An OSError means that the parent is gone.
    with suppress(OSError):
        _serve(answer, _connection() if takes_files else None)
    os._exit(0)


def _connection() -> socket.socket:
    import socket

    return socket.socket(fileno=_SOCKET)


def _receive_header(connection: socket.socket | None) -> tuple[bytes | None, list[int]]:
    """Read the length of the next request, None at the end, and the descriptors that came with it."""
    if connection is None:
        return _receive(_HEADER_BYTES), []
    import socket

    first, descriptors, _, _ = socket.recv_fds(connection, _HEADER_BYTES, 1)
    rest = _receive(_HEADER_BYTES - len(first)) if first else None
    return None if rest is None else first + rest, descriptors


def _serve(answer: Callable[[dict[str, Any], int], dict[str, Any]], connection: socket.socket | None) -> None:
    idle_bytes = address_space()
    _send({})
    while True:
        header, descriptors = _receive_header(connection)
        if header is None or (body := _receive(int.from_bytes(header))) is None:
            return
        size = len(body)
        try:
            request = json.loads(body.decode(*_ENCODING))
        except (ValueError, RecursionError) as error:
            _send({"fault": "failed", "why": str(error)})
            continue
        del body
        for descriptor in descriptors:
            request["file"] = descriptor
        try:
            reply = answer(request, size)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        del request
        ends = reply.get("fault") == "stopped" or address_space() > idle_bytes + _MAX_GROWTH_BYTES
        _send({**reply, "ends": True} if ends else reply)
        if ends:
            return
