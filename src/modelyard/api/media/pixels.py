"""From an opened image file to pixels as models see them: 8 bits of sRGB, upright, on white, scaled down."""

from __future__ import annotations

import io
import struct
from typing import Final

import numpy as np
from PIL import ExifTags, ImageCms, features
from PIL import Image as Pillow

# Profiles of printers are the largest, with 2 MiB. A larger one is left aside.
MAX_PROFILE_BYTES: Final = 4 * 2**20

# How an image is turned upright. Source: Exif 3.0, tag 0x0112, as in PIL.ImageOps.exif_transpose.
_TURNS: Final = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}

# Modes of Pillow by the colour space of a profile.
_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def seen(image: Pillow.Image, longest_edge: int) -> Pillow.Image:
    """The first picture of ``image`` as RGB, with no side longer than ``longest_edge``.

    It is scaled down as early as that is possible, so that what follows takes little memory.

    Raises:
        Exception: of any kind, where the file is damaged.
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
        # A damaged note beside the pixels is no reason to refuse these.
        return 1


def _plain(image: Pillow.Image) -> Pillow.Image:
    """``image`` with 8 bits a channel, in one of the modes L, RGB, RGBA and CMYK."""
    if image.mode.startswith("I") or image.mode == "F":
        return _of_sixteen_bits(image)
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:
        # Of a file with 16 bits a channel, of which Pillow keeps the upper 8 in the pixels alone.
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    # As it is where that will do: a copy takes as much memory again.
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("L" if image.mode == "1" else "RGB")


def _of_sixteen_bits(image: Pillow.Image) -> Pillow.Image:
    """Shades of grey, of which one may be transparent."""
    values = np.asarray(image)
    shades = Pillow.fromarray((np.clip(values, 0, 0xFFFF).astype(np.uint16) >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return shades
    shown = shades.convert("RGBA")
    shown.putalpha(Pillow.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return shown


def _in_srgb(image: Pillow.Image, profile: bytes) -> Pillow.Image:
    """``image`` in the colours of screens, where its own are others and its profile can be used.

    As in browsers, a profile that is damaged or belongs to other channels is left aside.
    """
    if len(profile) > MAX_PROFILE_BYTES or not features.check("littlecms2"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES.get(own.profile.xcolor_space.strip())
        if mode is None or (mode == "CMYK") != (image.mode == "CMYK"):
            return image
        if "srgb" in (own.profile.profile_description or "").lower():
            # To compute it would move colours by their rounding.
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
