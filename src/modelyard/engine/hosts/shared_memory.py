"""Memory that several processes map: KV states cross between a server and its engines without a copy in a pipe."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# A single read on Linux gives no more than 2 GiB less a page.
_MAX_READ_BYTES: Final = 1 << 30


class SharedMemory:
    """A block of memory behind a file descriptor, which any process that gets the descriptor can map.

    It has no name, so that nothing is left of it when the last process that holds it ends.

    Args:
        descriptor: of the block; it is closed with the last reference to this.
        size_bytes: of the block.
    """

    __slots__ = ("__weakref__", "descriptor", "size_bytes")

    def __init__(self, descriptor: int, size_bytes: int = 0) -> None:
        self.descriptor, self.size_bytes = descriptor, size_bytes
        weakref.finalize(self, os.close, descriptor)

    def read(self) -> bytes:
        """A copy of all bytes, made while the interpreter's lock is free: it lies between two processes for a moment.

        Raises:
            OSError: it cannot be read, or was cut off.
        """
        pieces: list[bytes] = []
        at = 0
        while at < self.size_bytes:
            piece = os.pread(self.descriptor, min(self.size_bytes - at, _MAX_READ_BYTES), at)
            if not piece:
                raise OSError(f"only {at} bytes of {self.size_bytes} are there")
            pieces.append(piece)
            at += len(piece)
        # Nearly always there is one, which is not copied again.
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @classmethod
    def empty(cls) -> SharedMemory:
        """A new block without any bytes, to be written as a file.

        Raises:
            OSError: there is none to be had.
        """
        return cls(_new_descriptor())

    @classmethod
    def copy_of(cls, array: npt.NDArray[Any]) -> SharedMemory:
        """A new block with the bytes of ``array``.

        Raises:
            OSError: there is no memory for it.
        """
        memory = cls(_new_descriptor(), array.nbytes)
        # Written and not mapped: a mapping that finds no memory ends the process with SIGBUS.
        left = memoryview(array.reshape(-1).view(np.uint8).data)
        while left:
            left = left[os.write(memory.descriptor, left) :]
        return memory


class SharedArray(np.ndarray):
    """An array in shared memory, or a view of one.

    Attributes:
        memory: the block whose bytes are those of this array; None of a view.
    """

    memory: SharedMemory | None = None

    @classmethod
    def on(cls, memory: SharedMemory, dtype: str, shape: tuple[int, ...]) -> SharedArray:
        """The whole of ``memory`` as an array.

        Raises:
            ValueError: it has another size.
            OSError: it cannot be mapped.
        """
        mapped = mmap.mmap(memory.descriptor, memory.size_bytes)
        array = np.frombuffer(mapped, dtype).reshape(shape).view(cls)
        array.memory = memory
        return array


def _new_descriptor() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("modelyard", os.MFD_CLOEXEC)
    # Where the system has none (macOS), a file without a name.
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
