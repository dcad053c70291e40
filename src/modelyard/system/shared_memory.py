"""Memory that several processes map, so that KV states reach another process without a copy through a pipe."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# A single read on Linux returns at most 2 GiB less a page.
_MAX_READ_BYTES: Final = 1 << 30


class SharedMemory:
    """A block of memory with a file descriptor, which any process that receives the descriptor can map.

    The block has no name, so that its memory is freed when the last process that holds it ends.

    Args:
        descriptor: its file descriptor, which is closed when this object is freed.
        size_bytes: its size.
    """

    __slots__ = ("__weakref__", "descriptor", "size_bytes")

    def __init__(self, descriptor: int, size_bytes: int = 0) -> None:
        self.descriptor, self.size_bytes = descriptor, size_bytes
        weakref.finalize(self, os.close, descriptor)

    def read(self) -> bytes:
        """Return a copy of all bytes, which is made without the GIL.

        Raises:
            OSError: it cannot be read, or is truncated.
        """
        pieces: list[bytes] = []
        offset = 0
        while offset < self.size_bytes:
            piece = os.pread(self.descriptor, min(self.size_bytes - offset, _MAX_READ_BYTES), offset)
            if not piece:
                raise OSError(f"only {offset} bytes of {self.size_bytes} are there")
            pieces.append(piece)
            offset += len(piece)
        # A single piece, the usual case, is not copied again.
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @classmethod
    def empty(cls) -> SharedMemory:
        """Return a new block of 0 bytes, to be written as a file.

        Raises:
            OSError: it cannot be made.
        """
        return cls(_new_descriptor())

    @classmethod
    def copy_of(cls, array: npt.NDArray[Any]) -> SharedMemory:
        """Return a new block with the bytes of ``array``.

        Raises:
            OSError: there is no memory for it.
        """
        memory = cls(_new_descriptor(), array.nbytes)
        # Written rather than mapped: writing to a mapping without memory ends the process with SIGBUS.
        left = memoryview(array.reshape(-1).view(np.uint8).data)
        while left:
            left = left[os.write(memory.descriptor, left) :]
        return memory


class SharedArray(np.ndarray):
    """An array in shared memory, or a view of one.

    Attributes:
        memory: the block whose bytes are exactly those of this array; None for a view.
    """

    memory: SharedMemory | None = None

    @classmethod
    def on(cls, memory: SharedMemory, dtype: str, shape: tuple[int, ...]) -> SharedArray:
        """Return all of ``memory`` as an array.

        Raises:
            ValueError: the block has another size.
            OSError: it cannot be mapped.
        """
        mapped = mmap.mmap(memory.descriptor, memory.size_bytes)
        array = np.frombuffer(mapped, dtype).reshape(shape).view(cls)
        array.memory = memory
        return array


def _new_descriptor() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("modelyard", os.MFD_CLOEXEC)
    # macOS has no memfd_create; an unlinked file takes its place.
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
