"""Standard streams that are missing at the start, or whose reader goes away.

A program that is started without them would open its next files and sockets under their descriptors, and write its log
into those.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import Final, TextIO

# Errors of a stream that has lost its reader for good: a pipe without reader, a terminal that has hung up.
_GONE: Final = frozenset({errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF})

# Exit status that a shell reports for a program that SIGPIPE has ended, as most programs end without a reader.
CUT_STATUS: Final = 128 + getattr(signal, "SIGPIPE", 13)


def open_missing() -> None:
    """Open descriptors 0, 1 and 2 that are missing, for this process and for its child processes."""
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
    """Standard output or standard error.

    Attributes:
        is_cut: whether a write found that the reader is gone. Later output is discarded.
        outlives_readers: whether a missing reader is no error, because the program goes on without its output.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.is_cut = self.outlives_readers = False

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write as much as the stream accepts, and return how many bytes that was."""
        try:
            written = super().write(data)
        except OSError as error:
            if error.errno in _GONE:
                self.is_cut = True
                self._discard_output()
            if not self.outlives_readers:
                raise
            written = len(data)
        if written is None and self.outlives_readers:
            # A non-blocking pipe is full: these bytes are dropped, later ones are not.
            written = len(data)
        return written

    def _discard_output(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


def watch() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` notice when their reader is gone."""
    if os.name == "posix":
        sys.stdout, sys.stderr = _watched(sys.stdout, 1), _watched(sys.stderr, 2)


def outlive_readers() -> None:
    """Let the program go on when the reader of its output is gone."""
    for raw in _files():
        raw.outlives_readers = True


def was_cut() -> bool:
    """Whether the output lost its reader, in a program that ends for that reason."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            continue
    return any(raw.is_cut and not raw.outlives_readers for raw in _files())


def _watched(stream: TextIO, number: int) -> TextIO:
    own = sys.__stdout__ if number == 1 else sys.__stderr__
    if stream is not own or not isinstance(stream, io.TextIOWrapper):
        # A Python program that calls the command line has replaced the stream to capture the output.
        return stream
    stream.flush()
    raw = OutputFile(number)
    # Python's unbuffered mode (-u) has no buffer between the text layer and the file.
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
