"""The bytes of an image file become pixels, or are refused before they take memory. Runs on a thread of its own."""

from __future__ import annotations

import io
import warnings
from typing import Final

from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from modelyard.engine.question import Image
from modelyard.errors import InvalidRequest

FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
_SPELT: Final = "PNG, JPEG, GIF, BMP or WebP"

MOST_BYTES: Final = 20 * 2**20
MOST_PIXELS: Final = 50_000_000

# How many times as long as wide: projectors scale an image to fixed sizes, in which a thinner one has no height.
MOST_ASPECT: Final = 50

# What else people send, by what it begins with, from that byte on.
_OTHERS: Final = (
    (0, b"%PDF", "PDF document"),
    (0, b"<svg", "SVG drawing"),
    (0, b"<?xml", "XML document"),
    (0, b"<!DOCTYPE", "web page"),
    (0, b"<html", "web page"),
    (0, b"II*\0", "TIFF image"),
    (0, b"MM\0*", "TIFF image"),
    (0, b"\0\0\1\0", "Windows icon"),
    (0, b"\xff\x0a", "JPEG XL image"),
    (4, b"ftypavif", "AVIF image"),
    (4, b"ftyphei", "HEIC image"),
    (4, b"ftypmif1", "HEIC image"),
    (4, b"ftyp", "video"),
)


def decode(data: bytes, param: str, longest_edge: int) -> Image:
    """The image in ``data``, upright, on white, with no side longer than ``longest_edge``; of an animation the first.

    Raises:
        InvalidRequest: it is no image, of another format, damaged, cut off, or too large.
    """
    if len(data) > MOST_BYTES:
        raise InvalidRequest(f"The image has more than the {MOST_BYTES // 2**20} MiB that are taken.", param)
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes that are refused here.
            warnings.simplefilter("ignore")
            with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(*image.size, param)
                # A JPEG is not decoded larger than it is needed.
                image.draft("RGB", (longest_edge, longest_edge))
                return _pixels(image, param, longest_edge)
    except InvalidRequest:
        raise
    except UnidentifiedImageError:
        raise InvalidRequest(f"{_what(data)} Send {_SPELT}.", param) from None
    except Exception as failure:
        # Decoders fail on foreign bytes in every way that there is.
        raise InvalidRequest(
            f"The image is damaged or cut off ({type(failure).__name__}). Send the whole file.", param
        ) from failure


def _check_size(width: int, height: int, param: str) -> None:
    if width * height > MOST_PIXELS:
        raise InvalidRequest(
            f"The image has {width} x {height} pixels, more than the {MOST_PIXELS:,} that are taken. Scale it down.",
            param,
        )
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise InvalidRequest(
            f"The image has {width} x {height} pixels: it is more than {MOST_ASPECT} times as long as it is wide. "
            "Cut it into parts.",
            param,
        )


def _pixels(image: Pillow.Image, param: str, longest_edge: int) -> Image:
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        # 16 bits a pixel, which convert would cut off at 255.
        upright = upright.convert("I").point(lambda value: value / 256).convert("L")
    if upright.has_transparency_data:
        seen = upright.convert("RGBA")
        upright = Pillow.alpha_composite(Pillow.new("RGBA", seen.size, "white"), seen)
    upright = upright.convert("RGB")
    upright.thumbnail((longest_edge, longest_edge))
    return Image(upright.width, upright.height, upright.tobytes(), param)


def _what(data: bytes) -> str:
    if not data:
        return "The image is empty."
    for at, beginning, name in _OTHERS:
        if data[at : at + len(beginning)] == beginning:
            return f"This is a {name}, which is not taken."
    return "This is no image that is known here."
