"""Memory that this process has allocated in large pieces: where it is, and how to map its pages before they are used.

The first access to a page of new memory clears it, which for large buffers takes as long as filling them. Nothing here
is known on other systems than Linux.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from modelyard.system.file_mappings import CAN_GIVE_BACK, MAPS, MappedRange

# Source: Linux, include/uapi/asm-generic/mman-common.h.
_MADV_POPULATE_WRITE: Final = 23


def anonymous_ranges(maps: Path = MAPS) -> list[MappedRange]:
    """Return where this process has memory of its own that it can write, in order of addresses; [] elsewhere.

    Source: Linux, Documentation/filesystems/proc.rst, /proc/PID/maps.
    """
    if not CAN_GIVE_BACK:
        return []
    found: list[MappedRange] = []
    for line in maps.read_bytes().splitlines():
        fields = line.split(None, 5)
        if len(fields) == 5 and fields[1] == b"rw-p":
            begin, end = (int(part, 16) for part in fields[0].split(b"-"))
            found.append(MappedRange(begin, end))
    return found


def added_ranges(before: Iterable[MappedRange], after: Iterable[MappedRange]) -> list[MappedRange]:
    """Return the parts of ``after`` that are in no range of ``before``, both in order of addresses. Pure."""
    known = list(before)
    added: list[MappedRange] = []
    for each in after:
        begin = each.begin
        for other in known:
            if other.end <= begin or other.begin >= each.end:
                continue
            if other.begin > begin:
                added.append(MappedRange(begin, other.begin))
            begin = max(begin, other.end)
        if begin < each.end:
            added.append(MappedRange(begin, each.end))
    return added


def map_for_writing(pages: MappedRange) -> bool:
    """Map pages of new memory; whether the system does it: Linux from 5.14 on, where the memory is there.

    What is in them stays, so that it may also be called while they are written, and harms no other memory that has
    their addresses by then.
    """
    return int(_libc.madvise(ctypes.c_void_p(pages.begin), ctypes.c_size_t(pages.size), _MADV_POPULATE_WRITE)) == 0


_libc = ctypes.CDLL(None, use_errno=True)
