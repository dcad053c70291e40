"""Files that are mapped into this process: where they are, and how to give back their pages.

A page that is given back leaves the memory of this process, and stays in the page cache of the system, which drops it
only when memory is short; the next access maps it again. Nothing here is known on other systems than Linux.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

CAN_GIVE_BACK: Final = sys.platform == "linux"
"""Whether this system says where files are mapped, so that their pages can be given back."""

MAPS: Final = Path("/proc/self/maps")

# Source: Linux, include/uapi/asm-generic/mman-common.h.
_MADV_DONTNEED: Final = 4
_MADV_NOHUGEPAGE: Final = 15
_MADV_POPULATE_READ: Final = 22


class MappedRange(NamedTuple):
    """Addresses of this process, from ``begin`` up to and without ``end``."""

    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of it."""
        return self.end - self.begin


def mappings_of(paths: Sequence[Path], maps: Path = MAPS) -> list[MappedRange]:
    """Return where files are mapped as shared pages, in order of addresses; [] on systems other than Linux.

    A file that was mapped twice, or of which a part was unmapped, has several mappings.

    Args:
        paths: of files, with symbolic links resolved.
        maps: the system's list of the mappings of this process.

    Raises:
        OSError: a file does not exist any more.

    Source: Linux, Documentation/filesystems/proc.rst, /proc/PID/maps.
    """
    if not CAN_GIVE_BACK:
        return []
    # Some file systems in layers show another device or inode there than for the file itself, and others another path.
    statuses = [path.stat() for path in paths]
    inodes = {(os.major(found.st_dev), os.minor(found.st_dev), found.st_ino) for found in statuses}
    names = {os.fsencode(path) for path in paths}
    found: list[MappedRange] = []
    for line in maps.read_bytes().splitlines():
        fields = line.split(None, 5)
        if len(fields) < 6 or not fields[1].endswith(b"s"):
            continue
        major, minor = (int(part, 16) for part in fields[3].split(b":"))
        if (major, minor, int(fields[4])) in inodes or fields[5] in names:
            begin, end = (int(part, 16) for part in fields[0].split(b"-"))
            found.append(MappedRange(begin, end))
    return found


def pages_of(ranges: Iterable[MappedRange]) -> list[MappedRange]:
    """Return the pages that ranges touch, in order of addresses, with adjacent ones joined. Pure."""
    joined: list[MappedRange] = []
    for each in sorted(ranges):
        begin, end = each.begin // mmap.PAGESIZE * mmap.PAGESIZE, -(-each.end // mmap.PAGESIZE) * mmap.PAGESIZE
        if joined and begin <= joined[-1].end:
            joined[-1] = MappedRange(joined[-1].begin, max(joined[-1].end, end))
        else:
            joined.append(MappedRange(begin, end))
    return joined


def gaps_between(pages: Sequence[MappedRange]) -> list[MappedRange]:
    """Return what lies between ranges of pages that ``pages_of`` has returned. Pure."""
    return [MappedRange(before.end, after.begin) for before, after in pairwise(pages)]


def give_back(pages: Iterable[MappedRange]) -> None:
    """Give back pages of mapped files, also such that are locked in memory.

    Args:
        pages: whole pages, which must stay mapped from files until this returns: other memory would lose its contents.
    """
    for each in pages:
        _give_back(each)


def map_singly(mapping: MappedRange) -> None:
    """Have a mapped file use no large pages from now on, of which each maps 2 MB, whatever is needed of it."""
    _libc.madvise(ctypes.c_void_p(mapping.begin), ctypes.c_size_t(mapping.size), _MADV_NOHUGEPAGE)


def map_again(pages: Iterable[MappedRange]) -> None:
    """Map pages that were given back, so that the first use does not do it page by page.

    Linux before 5.14 leaves it to the first use.
    """
    for each in pages:
        _libc.madvise(ctypes.c_void_p(each.begin), ctypes.c_size_t(each.size), _MADV_POPULATE_READ)


def _give_back(pages: MappedRange) -> None:
    address, size = ctypes.c_void_p(pages.begin), ctypes.c_size_t(pages.size)
    if _libc.madvise(address, size, _MADV_DONTNEED) == 0:
        return
    # Locked pages are refused as a wrong argument. Any other failure leaves them where they are, which is no harm.
    if ctypes.get_errno() == errno.EINVAL and _libc.munlock(address, size) == 0:
        _libc.madvise(address, size, _MADV_DONTNEED)


_libc = ctypes.CDLL(None, use_errno=True)
