"""Where this process has memory of its own, and that it can be mapped before it is used."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from modelyard.system.anonymous_memory import added_ranges, anonymous_ranges, map_for_writing
from modelyard.system.file_mappings import MappedRange
from support.mapped_file import PAGE, resident_pages

PAGES = 64


def test_new_memory_is_found_and_mapped_and_keeps_what_is_in_it() -> None:
    before = anonymous_ranges()
    with mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        begin = int(np.frombuffer(memory, np.uint8).ctypes.data)
        pages = MappedRange(begin, begin + PAGES * PAGE)
        added = added_ranges(before, anonymous_ranges())
        assert any(each.begin <= pages.begin and pages.end <= each.end for each in added)
        memory[5 * PAGE] = 7
        assert sum(resident_pages(pages)) == 1
        assert map_for_writing(pages)
        assert all(resident_pages(pages))
        assert memory[5 * PAGE] == 7
    assert not map_for_writing(MappedRange(PAGE, 2 * PAGE))


def test_only_memory_that_can_be_written_and_is_no_file_counts(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "10000-20000 rw-p 00000000 00:00 0 \n"
        "20000-30000 r--p 00000000 00:00 0 \n"
        "30000-40000 rw-p 00000000 00:2f 1 /a/file\n"
        "40000-50000 rw-p 00000000 00:00 0 [heap]\n"
    )
    assert anonymous_ranges(maps) == [MappedRange(0x10000, 0x20000)]


def test_what_is_added_to_a_range_is_told_from_the_range() -> None:
    before = [MappedRange(10, 20), MappedRange(40, 50)]
    assert added_ranges(before, [MappedRange(5, 60)]) == [MappedRange(5, 10), MappedRange(20, 40), MappedRange(50, 60)]
    assert added_ranges(before, [MappedRange(12, 18), MappedRange(30, 35)]) == [MappedRange(30, 35)]
    assert added_ranges([], [MappedRange(1, 2)]) == [MappedRange(1, 2)]
    assert added_ranges(before, before) == []
