"""What images become among tokens at each detail, with projectors that cut as those of llama.cpp do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

import pytest

from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.llama import SpanSize
from modelyard.engine.loading import image_layout
from modelyard.engine.loading.image_layout import Layouts, Part, scaled
from modelyard.protocol.prompts import Detail, Image
from support.images import noise

FAKE, GLOBAL, LINE_END = 7, 8, 9
OPENING = [FAKE, GLOBAL]
TILE = 448


class Projector:
    """Counts what it prepares."""

    def __init__(self, cut: Callable[[int, int], list[Part]]) -> None:
        self._cut = cut
        self.prepared: list[tuple[int, int]] = []

    def __call__(self, image: Image) -> list[Part]:
        self.prepared.append((image.width, image.height))
        return self._cut(image.width, image.height)


def cut_above_a_tile(width: int, height: int) -> list[Part]:
    """LLaVA-UHD, InternVL: the overview, and tiles of what is larger than one."""
    tiles = ceil(width / TILE) * ceil(height / TILE) if max(width, height) > TILE else 0
    return [[1], *[SpanSize(256, 256)] * tiles, SpanSize(256, 256), [2]]


def cut_by_area(width: int, height: int) -> list[Part]:
    """MiniCPM-V 4.6: a long image may be longer than a tile."""
    return [[1], *[SpanSize(64, 64)] * (4 if width * height > TILE * TILE else 0), SpanSize(64, 64), [2]]


def cut_always(width: int, height: int) -> list[Part]:
    """Idefics 3: four tiles, and the overview behind them."""
    tiles: list[Part] = []
    for _ in range(4):
        tiles += [[FAKE, 100], SpanSize(64, 64)]
    return [*tiles, [LINE_END, *OPENING], SpanSize(64, 64), [FAKE]]


def cut_never(width: int, height: int) -> list[Part]:
    return [[1], SpanSize(ceil(width / 28) * ceil(height / 28), max(width, height) // 28), [2]]


def image(detail: Detail, width: int = 500, height: int = 300, seed: int = 1) -> Image:
    return replace(noise(seed, width, height), detail=detail)


def pictures(layouts: Layouts, shown: Image) -> list[ImageSpan]:
    return [part for part in layouts.of(shown).of(shown) if isinstance(part, ImageSpan)]


@pytest.mark.parametrize("cut", [cut_above_a_tile, cut_by_area, cut_always, cut_never])
@pytest.mark.parametrize("detail", ["auto", "high"])
def test_all_of_an_image_is_shown_unless_an_overview_is_asked_for(
    cut: Callable[[int, int], list[Part]], detail: Detail
) -> None:
    parts = Layouts(Projector(cut), [OPENING]).of(image(detail)).of(image(detail))
    expected = cut(500, 300)
    assert [part if isinstance(part, list) else SpanSize(part.length, part.positions) for part in parts] == expected
    assert [part.index for part in parts if isinstance(part, ImageSpan)] == [
        index for index, part in enumerate(expected) if isinstance(part, SpanSize)
    ]


@pytest.mark.parametrize(
    ("cut", "size", "least"), [(cut_above_a_tile, (500, 300), 440), (cut_by_area, (512, 450), 470)]
)
def test_an_overview_is_as_large_as_it_may_be_without_being_cut(
    cut: Callable[[int, int], list[Part]], size: tuple[int, int], least: int
) -> None:
    shown = image("low", *size)
    (overview,) = pictures(Layouts(Projector(cut), [OPENING]), shown)
    assert least <= overview.source.width < size[0]
    assert overview.source.height == pytest.approx(overview.source.width * size[1] / size[0], abs=1)
    assert overview.source.digest != shown.digest
    assert overview.source.param == shown.param


@pytest.mark.parametrize("cut", [cut_above_a_tile, cut_by_area, cut_never])
def test_what_is_not_cut_is_an_overview_already(cut: Callable[[int, int], list[Part]]) -> None:
    projector = Projector(cut)
    shown = image("low", 300, 200)
    (overview,) = pictures(Layouts(projector, [OPENING]), shown)
    assert overview.source == shown
    assert projector.prepared == [(300, 200)]


def test_a_projector_that_cuts_everything_shows_its_overview_alone() -> None:
    layouts = Layouts(Projector(cut_always), [[5], OPENING])
    parts = layouts.of(image("low")).of(image("low"))
    assert [parts[0], parts[2]] == [OPENING, [FAKE]]
    assert isinstance(parts[1], ImageSpan)
    assert len(parts) == 3
    # It is the same picture that a closer look ends with, and is encoded once for both.
    assert parts[1].placeholders == pictures(layouts, image("auto"))[-1].placeholders


def test_one_whose_overview_cannot_be_told_shows_all() -> None:
    assert len(pictures(Layouts(Projector(cut_always), [[5]]), image("low"))) == 5


def test_equal_images_are_laid_out_once_at_each_detail() -> None:
    projector = Projector(cut_above_a_tile)
    layouts = Layouts(projector, [])
    first = layouts.of(image("auto"))
    assert layouts.of(image("high")) is layouts.of(image("auto")) is first
    low = layouts.of(image("low"))
    times = len(projector.prepared)
    assert layouts.of(image("low")) is low is not first
    assert len(projector.prepared) == times
    layouts.of(image("auto", seed=2))
    assert len(projector.prepared) == times + 1


def test_the_layouts_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_layout, "MAX_LAYOUTS", 2)
    projector = Projector(cut_never)
    layouts = Layouts(projector, [])
    for seed in (1, 2, 1, 3, 1, 2):
        layouts.of(image("auto", 60, 60, seed))
    # The second was dropped for the third; the first was used in between each time.
    assert len(projector.prepared) == 4


def test_a_thin_image_keeps_its_last_pixel() -> None:
    assert (scaled(noise(1, 500, 3), 32).width, scaled(noise(1, 500, 3), 32).height) == (32, 1)
