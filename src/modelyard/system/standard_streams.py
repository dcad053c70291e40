"""Standard streams that may be closed from the beginning, or lose whoever reads them.

A program that is started without them would have its next files and sockets there, and write its log into them.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import Final, TextIO

# Nobody will ever read there again: a pipe without reader, a terminal that has hung up.
_GONE: Final = frozenset({errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF})

# What a shell says of a program that SIGPIPE has ended, which is how most programs end when nobody reads on.
CUT_STATUS: Final = 128 + getattr(signal, "SIGPIPE", 13)


def open_missing() -> None:
    """Have descriptors 0, 1 and 2 be there, for this process and for those that it starts."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (as long as the process)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


class OutputFile(io.FileIO):
    """Standard output, or the error stream.

    Attributes:
        is_cut: it was written to when nobody could read it any more. It leads nowhere from then on.
        outlives_readers: that is no error: the program has more to do than to write.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.is_cut = self.outlives_readers = False

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write as much as is taken."""
        try:
            written = super().write(data)
        except OSError as error:
            if error.errno in _GONE:
                self.is_cut = True
                self._lead_nowhere()
            if not self.outlives_readers:
                raise
            written = len(data)
        if written is None and self.outlives_readers:
            # A pipe that does not wait is full: that is lost, and what comes later is not.
            written = len(data)
        return written

    def _lead_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def watch() -> None:
    """Have ``sys.stdout`` and ``sys.stderr`` notice when nobody reads them any more."""
    if os.name == "posix":
        sys.stdout, sys.stderr = _watched(sys.stdout, 1), _watched(sys.stderr, 2)


def outlive_readers() -> None:
    """Go on when nobody reads the output any more."""
    for raw in _files():
        raw.outlives_readers = True


def was_cut() -> bool:
    """Whether this program was to write where nobody reads, and had nothing else to do."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            continue
    return any(raw.is_cut and not raw.outlives_readers for raw in _files())


def _watched(stream: TextIO, number: int) -> TextIO:
    own = sys.__stdout__ if number == 1 else sys.__stderr__
    if stream is not own or not isinstance(stream, io.TextIOWrapper):
        # A program that calls the command line gathers what it writes.
        return stream
    stream.flush()
    raw = OutputFile(number)
    # Python's own is unbuffered where it was asked to be, and then has no buffer in between.
    is_unbuffered = stream.write_through
    return io.TextIOWrapper(
        raw if is_unbuffered else io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=is_unbuffered,
    )


def _files() -> list[OutputFile]:
    buffers = (getattr(stream, "buffer", None) for stream in (sys.stdout, sys.stderr))
    raws = (getattr(buffer, "raw", buffer) for buffer in buffers)
    return [raw for raw in raws if isinstance(raw, OutputFile)]
