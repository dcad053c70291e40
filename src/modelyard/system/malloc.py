"""Settings of glibc's heap, so that the memory of an unloaded model returns to the system."""

from __future__ import annotations

import ctypes
from typing import Final

# Source: glibc, malloc.h.
_M_ARENA_MAX: Final = -8

_libc = ctypes.CDLL(None)


def share_one_heap() -> None:
    """Let threads that are started from now on allocate from one heap. No effect without glibc.

    glibc gives each thread a heap of its own and keeps freed memory in it: after the unload of a model with 262,144
    tokens some 45 MB stayed allocated. Only vocabularies are allocated in small pieces, so that one heap costs no time.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)


def trim_heap() -> None:
    """Return freed memory to the system, which glibc otherwise keeps for the process. No effect without glibc."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
