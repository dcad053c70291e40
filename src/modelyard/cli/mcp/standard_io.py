"""Lines on standard input and output, for a protocol that has both for itself."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MAX_LINE_BYTES: Final = 4 << 20
"""Bytes of one line: the bound of a message at /mcp."""

_PIECE_BYTES: Final = 1 << 16
_MAX_UNREAD_PIECES: Final = 16


class LineTooLong(Exception):
    """A line on standard input has more than ``MAX_LINE_BYTES``."""


@contextmanager
def own_streams() -> Iterator[tuple[int, int]]:
    """Enter with descriptors of standard input and output that nothing else in the process reads or writes.

    Whatever is printed meanwhile goes to standard error, also by libraries in C and by child processes.
    """
    source, sink = os.dup(0), os.dup(1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    try:
        yield source, sink
    finally:
        os.dup2(source, 0)
        os.dup2(sink, 1)
        os.close(sink)
        # The reading thread may still wait for ``source``, which ends with the process.


async def lines_of(source: int) -> AsyncIterator[bytes]:
    """Yield the lines that are read from ``source``, without empty ones, until it ends.

    Raises:
        LineTooLong: a line is too long. Reading cannot go on, as its end is not known.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(_MAX_UNREAD_PIECES)

    def read() -> None:
        # By the descriptor: a daemon thread that holds a lock of a buffered file would end the interpreter badly.
        while True:
            try:
                piece = os.read(source, _PIECE_BYTES)
            except OSError:
                piece = b""
            try:
                asyncio.run_coroutine_threadsafe(pieces.put(piece), loop).result()
            except (RuntimeError, CancelledError):
                return  # The event loop is closed, or ends what still runs on it.
            if not piece:
                return

    threading.Thread(target=read, name="standard input", daemon=True).start()
    begun = b""
    while piece := await pieces.get():
        *lines, begun = (begun + piece).split(b"\n")
        for line in lines:
            if stripped := line.strip():
                yield stripped
        if len(begun) > MAX_LINE_BYTES:
            raise LineTooLong
    if stripped := begun.strip():
        yield stripped


class LineWriter:
    """Writes whole lines to a descriptor, one after the other, without blocking the event loop."""

    def __init__(self, sink: int) -> None:
        self._sink = sink
        self._turn = asyncio.Lock()

    async def write(self, line: bytes) -> None:
        """Write ``line``, which has no line break, and one after it.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        async with self._turn:
            await asyncio.to_thread(_write_all, self._sink, line + b"\n")


def _write_all(sink: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(sink, rest) :]
