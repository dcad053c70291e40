"""Converts an opened image file to the pixels for models: 8 bits of sRGB, upright, on white, scaled down."""

from __future__ import annotations

import io
import struct
from typing import Final

import numpy as np
from PIL import ExifTags, ImageCms, features
from PIL import Image as Pillow

# Profiles of printers are the largest, with 2 MiB. A larger profile is ignored.
MAX_PROFILE_BYTES: Final = 4 * 2**20

# The transposition that turns an image upright. Source: Exif 3.0, tag 0x0112, as in PIL.ImageOps.exif_transpose.
_TURNS: Final = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}

# Colour space of a profile -> mode of Pillow.
_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_rgb(image: Pillow.Image, longest_edge: int) -> Pillow.Image:
    """Return the first frame of ``image`` as RGB, with no side longer than ``longest_edge``.

    The image is scaled down as early as possible, so that the other steps take little memory.

    Raises:
        Exception: any exception, if the file is damaged.
    """
    image.load()
    turn, profile = _TURNS.get(_orientation(image)), image.info.get("icc_profile")
    shown = _plain(image)
    shown.thumbnail((longest_edge, longest_edge))
    alpha = None
    if shown.mode == "RGBA":
        alpha, shown = shown.getchannel("A"), shown.convert("RGB")
    if isinstance(profile, bytes):
        shown = _in_srgb(shown, profile)
    shown = shown.convert("RGB")
    if alpha is not None:
        shown = Pillow.composite(shown, Pillow.new("RGB", shown.size, "white"), alpha)
    return shown if turn is None else shown.transpose(turn)


def _orientation(image: Pillow.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (KeyError, OSError, SyntaxError, TypeError, ValueError, struct.error):
        # Damaged metadata is ignored.
        return 1


def _plain(image: Pillow.Image) -> Pillow.Image:
    """Return ``image`` with 8 bits a channel, in one of the modes L, RGB, RGBA and CMYK."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_sixteen_bits(image)
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:
        # In a file with 16 bits a channel, Pillow reduces pixels to 8 bits, but not the transparent colour.
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    # Returned without a copy where possible, to save memory.
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("L" if image.mode == "1" else "RGB")


def _from_sixteen_bits(image: Pillow.Image) -> Pillow.Image:
    """Return a 16-bit grey image with 8 bits; one shade may be transparent."""
    values = np.asarray(image)
    shades = Pillow.fromarray((np.clip(values, 0, 0xFFFF).astype(np.uint16) >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return shades
    shown = shades.convert("RGBA")
    shown.putalpha(Pillow.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return shown


def _in_srgb(image: Pillow.Image, profile: bytes) -> Pillow.Image:
    """Return ``image`` converted from ``profile`` to sRGB.

    Like browsers, it ignores a profile that is damaged or does not match the channels.
    """
    if len(profile) > MAX_PROFILE_BYTES or not features.check("littlecms2"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES.get(own.profile.xcolor_space.strip())
        if mode is None or (mode == "CMYK") != (image.mode == "CMYK"):
            return image
        if "srgb" in (own.profile.profile_description or "").lower():
            # A conversion from sRGB to sRGB would change colours by rounding.
            return image
        return (
            ImageCms.profileToProfile(
                image if image.mode == mode else image.convert(mode),
                own,
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
            or image
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return image
