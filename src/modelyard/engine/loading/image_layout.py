"""The layout of an image in a prompt: image spans, and the text that the model expects around them. Pure.

Many projectors cut an image into tiles and add an overview of it. With the detail "low" only the overview is used. Most
projectors do not cut an image that is small enough. How small depends on numbers in their files, for each kind in its
own way, so the limit is found by trying blank images. Projectors that cut every image (Idefics 3, SmolVLM) put the
overview last; the tiles before it are left out, as the processors of these models do when image splitting is off.

Layouts are cached by the content of images: a conversation sends all its images with every turn, and preparing an image
takes time in proportion to its pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from PIL import Image as Pillow

from modelyard.engine.kv.placeholders import ImageSpan
from modelyard.engine.llama import SpanSize
from modelyard.protocol.prompts import Image

# Limit of cached layouts; each takes some hundred bytes, or some thousand where there are many tiles.
MAX_LAYOUTS: Final = 1024

# The text before an overview that comes after its tiles, in projectors that cut every image. Source: mtmd_context,
# init_vision in tools/mtmd/mtmd.cpp of llama.cpp, tok_ov_img_start without the end of the line of tiles before it.
OVERVIEW_OPENINGS: Final = ("<fake_token_around_image><global-img>", "<im_start>")

# Pixels of the longer side: no projector has smaller tiles, and the search for a size uses these steps.
_MIN_EDGE: Final = 32
_EDGE_STEP: Final = 8

Part: TypeAlias = list[int] | SpanSize
"""Ids of text, or the size of an image span."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of all images of equal content.

    Attributes:
        edge: pixels of the longer side that the image is scaled down to before it is cut; None: it is not scaled.
        parts: each with its index among all parts that the projector makes of the image.
    """

    edge: int | None
    parts: tuple[tuple[int, Part], ...]

    def of(self, image: Image) -> list[list[int] | ImageSpan]:
        """Return the parts, with spans of ``image``."""
        shown = image if self.edge is None else scaled(image, self.edge)
        return [
            ImageSpan(shown, index, part.length, part.positions) if isinstance(part, SpanSize) else part
            for index, part in self.parts
        ]


class Layouts:
    """The layouts of one projector.

    Args:
        prepare: returns the parts that the projector makes of an image.
        openings: token ids of each of OVERVIEW_OPENINGS.
    """

    def __init__(self, prepare: Callable[[Image], Sequence[Part]], openings: Sequence[list[int]]) -> None:
        self._prepare = prepare
        self._openings = openings
        self._layouts: OrderedDict[tuple[bytes, bool], Layout] = OrderedDict()

    def of(self, image: Image) -> Layout:
        """Return the layout of ``image`` at its detail.

        Raises:
            InvalidRequest: the projector cannot take it.
        """
        is_low = image.detail == "low"
        name = image.digest, is_low
        layout = self._layouts.get(name)
        if layout is None:
            layout = self._layouts[name] = self._overview(image) if is_low else _whole(self._prepare(image))
            if len(self._layouts) > MAX_LAYOUTS:
                self._layouts.popitem(last=False)
        else:
            self._layouts.move_to_end(name)
        return layout

    def _overview(self, image: Image) -> Layout:
        parts = self._prepare(image)
        if not _is_cut(parts):
            return _whole(parts)
        if (edge := self._uncut_edge(image)) is not None:
            return _whole(self._prepare(scaled(image, edge)), edge)
        last = max(index for index, part in enumerate(parts) if isinstance(part, SpanSize))
        for opening in self._openings:
            before = parts[last - 1]
            if isinstance(before, list) and before[-len(opening) :] == opening:
                return Layout(None, ((last - 1, opening), *list(enumerate(parts))[last:]))
        return _whole(parts)

    def _uncut_edge(self, image: Image) -> int | None:
        """Return the longest side at which the projector leaves an image of these proportions whole, if any."""

        def is_cut(edge: int) -> bool:
            width, height = _scaled_size(image, edge)
            return _is_cut(self._prepare(Image(width, height, bytes(3 * width * height), image.param)))

        uncut, cut = _MIN_EDGE, max(image.width, image.height)
        if uncut >= cut or is_cut(uncut):
            return None
        while cut - uncut > _EDGE_STEP:
            middle = (uncut + cut) // 2
            if is_cut(middle):
                cut = middle
            else:
                uncut = middle
        return uncut


def scaled(image: Image, edge: int) -> Image:
    """Return ``image`` scaled down, in its proportions, to a longer side of ``edge`` pixels."""
    size = _scaled_size(image, edge)
    pixels = Pillow.frombuffer("RGB", (image.width, image.height), image.pixels)
    shown = pixels.resize(size, Pillow.Resampling.BICUBIC, reducing_gap=2.0)
    return replace(image, width=shown.width, height=shown.height, pixels=shown.tobytes())


def _scaled_size(image: Image, edge: int) -> tuple[int, int]:
    factor = edge / max(image.width, image.height)
    return max(1, round(image.width * factor)), max(1, round(image.height * factor))


def _whole(parts: Sequence[Part], edge: int | None = None) -> Layout:
    return Layout(edge, tuple(enumerate(parts)))


def _is_cut(parts: Sequence[Part]) -> bool:
    return sum(isinstance(part, SpanSize) for part in parts) > 1
