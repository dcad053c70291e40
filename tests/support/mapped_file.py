"""A file that is mapped into this process as llama.cpp maps weights, and which of its pages are resident."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from modelyard.system.file_mappings import MappedRange

PAGE = mmap.PAGESIZE


@contextmanager
def mapped(path: Path) -> Iterator[MappedRange]:
    """Map all of a file, with all of its pages resident."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
    begin = int(np.frombuffer(content, np.uint8).ctypes.data)
    with content:
        yield MappedRange(begin, begin + len(content))


def resident_pages(pages: MappedRange) -> list[bool]:
    """Return of each page of a mapping whether this process has it in its page tables."""
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        file.seek(pages.begin // PAGE * 8)
        raw = file.read(pages.size // PAGE * 8)
    # Source: Linux, Documentation/admin-guide/mm/pagemap.rst: bit 63, page present.
    return [bool(entry >> 63) for entry in memoryview(raw).cast("Q")]


def contents(pages: MappedRange) -> bytes:
    """Return what is at the addresses."""
    return ctypes.string_at(pages.begin, pages.size)


def lock(pages: MappedRange) -> None:
    """Lock pages in memory."""
    assert ctypes.CDLL(None).mlock(ctypes.c_void_p(pages.begin), ctypes.c_size_t(pages.size)) == 0
