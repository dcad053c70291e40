"""The bytes of an image file become pixels, or are refused before they take memory; see ``decoder_program``."""

from __future__ import annotations

import io
import warnings
from typing import Final

from PIL import Image as Pillow
from PIL import UnidentifiedImageError, features

from modelyard.api.media.foreign import foreign_name, is_avif, is_taken
from modelyard.api.media.pixels import seen
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Detail, Image

# Builds of Pillow from its source may lack the decoder of AVIF.
DECODES_AVIF: Final = features.check("avif") is True
FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "WEBP", *(("AVIF",) if DECODES_AVIF else ()))
_SPELT: Final = "PNG, JPEG, GIF, BMP, WebP or AVIF" if DECODES_AVIF else "PNG, JPEG, GIF, BMP or WebP"

MAX_BYTES: Final = 20 * 2**20
MAX_PIXELS: Final = 50_000_000

# How many times as long as wide: projectors scale an image to fixed sizes, in which a thinner one has no height.
MAX_ASPECT: Final = 50

# Begins what Pillow says of texts and profiles in a PNG that unpack to more than it takes. Source: PIL.PngImagePlugin.
_PACKED_BOMBS: Final = ("Decompressed data too large", "Too much memory used in text chunks")


def decode(data: bytes, param: str, longest_edge: int, detail: Detail = "auto") -> Image:
    """The image in ``data``, as ``picture``.

    Raises:
        InvalidRequest, MemoryError: as there.
    """
    shown = picture(data, param, longest_edge)
    return Image(shown.width, shown.height, shown.tobytes(), param, detail)


def picture(data: bytes, param: str, longest_edge: int) -> Pillow.Image:
    """The image in ``data`` in RGB, upright, on white, with no side longer than ``longest_edge``.

    Of an animation it is the first picture.

    Raises:
        InvalidRequest: it is no image, of another format, damaged, cut off, or too large.
        MemoryError: there is no memory to decode it.
    """
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"The image has more than the {MAX_BYTES // 2**20} MiB that are taken.", param)
    _check_format(data, param)
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes that are refused here.
            warnings.simplefilter("ignore")
            with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(*image.size, param)
                # A JPEG is not decoded larger than it is needed.
                image.draft("RGB", (longest_edge, longest_edge))
                return seen(image, longest_edge)
    except (InvalidRequest, MemoryError):
        raise
    except Pillow.DecompressionBombError:
        raise InvalidRequest(
            f"The image has more than the {MAX_PIXELS:,} pixels that are taken. Scale it down.", param
        ) from None
    except UnidentifiedImageError:
        if is_taken(data):
            raise InvalidRequest("The image is damaged or cut off in its header. Send the whole file.", param) from None
        raise InvalidRequest(f"This is no image that is known here. Send {_SPELT}.", param) from None
    except Exception as failure:
        if str(failure).startswith(_PACKED_BOMBS):
            raise InvalidRequest(
                "The image carries texts or a colour profile that unpack to more than 1 MiB. Save it without them.",
                param,
            ) from None
        # Decoders fail on foreign bytes in every way that there is.
        raise InvalidRequest(
            f"The image is damaged or cut off ({type(failure).__name__}). Send the whole file.", param
        ) from failure


def _check_format(data: bytes, param: str) -> None:
    """Refuse what names itself as something else, before any decoder looks at it."""
    if not data:
        raise InvalidRequest(f"The image is empty. Send {_SPELT}.", param)
    if (name := foreign_name(data)) is not None:
        raise InvalidRequest(f"This is {name}, which is not taken. Send {_SPELT}.", param)
    if is_avif(data) and not DECODES_AVIF:
        raise InvalidRequest(
            "This is an AVIF image, which this server's build of Pillow does not decode. "
            f"Send {_SPELT}; whoever runs the server can install Pillow from its wheel.",
            param,
        )


def _check_size(width: int, height: int, param: str) -> None:
    if width * height > MAX_PIXELS:
        raise InvalidRequest(
            f"The image has {width} x {height} pixels, more than the {MAX_PIXELS:,} that are taken. Scale it down.",
            param,
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidRequest(
            f"The image has {width} x {height} pixels: it is more than {MAX_ASPECT} times as long as it is wide. "
            "Cut it into parts.",
            param,
        )
