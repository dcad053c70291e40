"""Reads the files of weights into the system's page cache before a load gets to them.

llama.cpp first maps all of a file, page by page in the order of the file, and reads no further than a page needs. Asked
for in advance, the system reads with as many requests at a time as the disk takes, also while the header is parsed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Final, Self

from modelyard.system.memory import available_bytes

logger = logging.getLogger(__name__)

# Linux reads no more for one call than a device's read-ahead, or its largest request. Source: mm/readahead.c,
# force_page_cache_ra; the default of read_ahead_kb.
CALL_BYTES: Final = 128 << 10

# Interval at which a read-ahead asks whether it goes on.
CHECK_BYTES: Final = 8 << 20

# Pages that show whether a file is in the page cache, spread over all of it.
SAMPLES: Final = 64

CAN_READ_AHEAD: Final = hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")
"""Whether the system can be asked for it: on Linux."""


def read_ahead(paths: Sequence[Path], goes_on: Callable[[], bool]) -> int:
    """Have the system read files into its page cache, in their order, and return the bytes that it was asked for.

    It ends where the memory that is available would be full. Files that are cached are left out. Blocks for about as
    long as the disk reads; may be called on any thread.

    Args:
        paths: of the files.
        goes_on: asked now and then; where it returns False, the rest is not read.
    """
    asked, limit = 0, available_bytes()
    for path in paths if CAN_READ_AHEAD else ():
        try:
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if _is_cached(file, size):
                    continue
                for begin in range(0, size, CALL_BYTES):
                    if asked + CALL_BYTES > limit or (begin % CHECK_BYTES == 0 and not goes_on()):
                        return asked
                    os.posix_fadvise(file.fileno(), begin, CALL_BYTES, os.POSIX_FADV_WILLNEED)
                    asked += CALL_BYTES
        except OSError as error:
            # The load that follows reports what is wrong with the file, if anything is.
            logger.debug("%s is not read ahead: %s", path.name, error)
    return asked


class ReadAhead:
    """Reads files ahead on a thread of its own, from its construction until ``end``. Also a context manager.

    Args:
        paths: as for ``read_ahead``.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(paths,), name="read ahead", daemon=True)
        self._thread.start()

    @property
    def goes_on(self) -> bool:
        """Whether it still reads."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Read no further; returns at once."""
        self._is_over.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _read(self, paths: Sequence[Path]) -> None:
        read_ahead(paths, lambda: not self._is_over.is_set())


def _is_cached(file: FileIO, size: int) -> bool:
    """Whether a file is in the page cache, as far as some of its pages show it."""
    byte = bytearray(1)
    try:
        for number in range(SAMPLES):
            os.preadv(file.fileno(), [byte], size * number // SAMPLES, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return True
