"""Which pages of a model's files stay while it is loaded, once it is loaded, and while nobody computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.engine.llama import file_pages
from modelyard.engine.llama.file_pages import FilePages
from modelyard.system.file_mappings import MappedRange
from support.mapped_file import PAGE, mapped, resident_pages

PAGES = 16
ALL = PAGES * PAGE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(bytes(ALL))
    return path


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_pages, "STEP_BYTES", 4 * PAGE)


def part(pages: MappedRange, first: int, count: int) -> MappedRange:
    return MappedRange(pages.begin + first * PAGE, pages.begin + (first + count) * PAGE)


def test_once_loaded_only_what_is_computed_on_stays(file: Path) -> None:
    with mapped(file) as pages:
        copied = MappedRange(1 << 40, (1 << 40) + 5 * PAGE)
        norm = MappedRange(pages.begin + 10 * PAGE + 100, pages.begin + 10 * PAGE + 200)
        owned = FilePages([file])
        assert owned.keep([part(pages, 2, 3), copied, norm, norm]) == 4 * PAGE
        # What precedes the first tensor and follows the last is llama.cpp's to unmap.
        assert resident_pages(part(pages, 2, 9)) == [True] * 3 + [False] * 5 + [True]


def test_pages_between_tensors_of_one_model_are_not_those_of_another_on_the_same_file(file: Path) -> None:
    with mapped(file) as mine, mapped(file) as others:
        FilePages([file]).keep([part(mine, 0, 1), part(mine, 15, 1)])
        assert sum(resident_pages(mine)) == 2
        assert all(resident_pages(others))


def test_files_that_are_not_mapped_have_no_pages(file: Path) -> None:
    assert FilePages([file]).keep([MappedRange(PAGE, 2 * PAGE)]) is None
    gone = FilePages([file])
    file.unlink()
    assert gone.keep([MappedRange(PAGE, 2 * PAGE)]) is None


def test_while_copies_are_made_no_more_than_a_step_stays(file: Path) -> None:
    owned = FilePages([file])
    with mapped(file) as pages:
        owned.on_progress(0.0, ALL)
        assert not any(resident_pages(pages))
    with mapped(file) as pages:
        owned = FilePages([file])
        for fraction, gives_back in ((0.0, True), (0.1, False), (0.25, True), (0.3, False), (1.0, False)):
            file_pages.map_again([pages])
            owned.on_progress(fraction, ALL)
            assert any(resident_pages(pages)) is not gives_back, fraction
        # What is computed on in the file is mapped again.
        file_pages.give_back([pages])
        owned.keep([part(pages, 3, 2)])
        assert resident_pages(part(pages, 3, 2)) == [True, True]


@pytest.mark.parametrize("copied_bytes", [0, 3 * PAGE, ALL // 2 - 1], ids=["none", "few", "the smaller part"])
def test_while_little_is_copied_everything_stays(file: Path, copied_bytes: int) -> None:
    owned = FilePages([file])
    with mapped(file) as pages:
        for fraction in (0.0, 0.5, 0.9):
            owned.on_progress(fraction, copied_bytes)
        assert all(resident_pages(pages))


def test_while_others_have_mapped_the_file_a_load_gives_nothing_back(file: Path) -> None:
    """Which mapping is its own is not known before its tensors are."""
    owned = FilePages([file])
    with mapped(file) as one, mapped(file) as another:
        owned.on_progress(0.0, ALL)
        assert all(resident_pages(one) + resident_pages(another))


def test_pages_that_are_computed_on_are_given_back_for_a_rest_and_mapped_again_in_steps(file: Path) -> None:
    owned = FilePages([file])
    fractions: list[float] = []

    def on_progress(fraction: float) -> bool:
        fractions.append(fraction)
        return True

    with mapped(file) as pages:
        owned.keep([part(pages, 0, 6), part(pages, 12, 2)])
        owned.rest()
        assert not any(resident_pages(part(pages, 0, 14)))
        assert owned.wake(on_progress)
        assert all(resident_pages(part(pages, 0, 6)))
        assert fractions == [0.0, 0.5, 0.75, 1.0]


def test_mapping_again_ends_when_the_load_is_given_up(file: Path) -> None:
    owned = FilePages([file])
    fractions: list[float] = []

    def on_progress(fraction: float) -> bool:
        fractions.append(fraction)
        return fraction < 0.5

    with mapped(file) as pages:
        owned.keep([part(pages, 0, 16)])
        assert not owned.wake(on_progress)
        assert fractions == [0.0, 0.25, 0.5]
