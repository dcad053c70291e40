"""Where files are mapped, and what giving back their pages leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.system.file_mappings import MappedRange, gaps_between, give_back, map_again, mappings_of, pages_of
from support.mapped_file import PAGE, contents, lock, mapped, resident_pages

PAGES = 8


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "with a space.gguf"
    path.write_bytes(bytes(range(256)) * (PAGES * PAGE // 256))
    return path


def test_a_file_is_found_where_it_is_mapped_and_only_there(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(bytes(PAGE))
    assert mappings_of([file]) == []
    with mapped(file) as first, mapped(file) as second, mapped(other) as third:
        assert set(mappings_of([file])) == {first, second}
        assert set(mappings_of([file, other])) == {first, second, third}
    assert mappings_of([file]) == []


def test_a_file_that_took_the_place_of_a_mapped_one_is_not_mapped(file: Path, tmp_path: Path) -> None:
    with mapped(file):
        fresh = tmp_path / "fresh"
        fresh.write_bytes(bytes(PAGE))
        fresh.rename(file)
        assert mappings_of([file]) == []


def test_a_file_is_found_by_its_path_where_the_file_system_shows_another_inode(file: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        f"10000-20000 r--s 00000000 00:2f 1 {file}\n"
        f"20000-30000 r--s 00000000 00:2f 1 {file} (deleted)\n"
        f"30000-40000 r--p 00000000 00:2f 1 {file}\n"
        "40000-50000 rw-p 00000000 00:00 0 \n"
        "50000-60000 rw-p 00000000 00:00 0 [heap]\n"
    )
    assert mappings_of([file], maps) == [MappedRange(0x10000, 0x20000)]


def test_pages_that_are_given_back_are_not_resident_and_have_the_same_contents_again(file: Path) -> None:
    with mapped(file) as pages:
        assert all(resident_pages(pages))
        middle = MappedRange(pages.begin + 2 * PAGE, pages.begin + 5 * PAGE)
        give_back([middle])
        assert resident_pages(pages) == [True] * 2 + [False] * 3 + [True] * 3
        map_again([middle])
        assert all(resident_pages(pages))
        give_back([pages])
        assert contents(pages) == file.read_bytes()


def test_locked_pages_are_given_back_too(file: Path) -> None:
    with mapped(file) as pages:
        lock(pages)
        middle = MappedRange(pages.begin + 2 * PAGE, pages.begin + 5 * PAGE)
        give_back([middle])
        assert resident_pages(pages) == [True] * 2 + [False] * 3 + [True] * 3


def test_ranges_take_whole_pages_and_those_that_touch_the_same_page_or_the_next_are_one() -> None:
    ranges = [MappedRange(9 * PAGE, 9 * PAGE + 1), MappedRange(PAGE + 5, 2 * PAGE - 5), MappedRange(2 * PAGE, 3 * PAGE)]
    pages = pages_of([*ranges, MappedRange(2 * PAGE + 7, 2 * PAGE + 9)])
    assert pages == [MappedRange(PAGE, 3 * PAGE), MappedRange(9 * PAGE, 10 * PAGE)]
    assert gaps_between(pages) == [MappedRange(3 * PAGE, 9 * PAGE)]
    assert gaps_between(pages_of([])) == []
