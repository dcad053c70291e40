"""Decodes image files into pixels, within limits of size and memory; see ``decoder_program``."""

from __future__ import annotations

import io
import warnings
from typing import Final

from PIL import Image as Pillow
from PIL import UnidentifiedImageError, features

from modelyard.api.media.file_types import is_avif, is_supported, unsupported_type
from modelyard.api.media.pixels import to_rgb
from modelyard.errors import InvalidRequest
from modelyard.protocol.prompts import Detail, Image

# Pillow built from source may lack the AVIF decoder.
DECODES_AVIF: Final = features.check("avif") is True
FORMATS: Final = ("PNG", "JPEG", "GIF", "BMP", "WEBP", *(("AVIF",) if DECODES_AVIF else ()))
_FORMAT_NAMES: Final = "PNG, JPEG, GIF, BMP, WebP or AVIF" if DECODES_AVIF else "PNG, JPEG, GIF, BMP or WebP"

MAX_BYTES: Final = 20 * 2**20
MAX_PIXELS: Final = 50_000_000

# Ratio of the sides. Projectors scale an image to fixed sizes, in which a thinner image would have no height.
MAX_ASPECT: Final = 50

# Start of Pillow's errors for text chunks and profiles of a PNG that unpack to too many bytes. Source:
# PIL.PngImagePlugin.
_UNPACKING_ERRORS: Final = ("Decompressed data too large", "Too much memory used in text chunks")


def decode(data: bytes, param: str, longest_edge: int, detail: Detail = "auto") -> Image:
    """Decode the image in ``data``; see ``picture``.

    Raises:
        InvalidRequest, MemoryError: as ``picture``.
    """
    image = picture(data, param, longest_edge)
    return Image(image.width, image.height, image.tobytes(), param, detail)


def picture(data: bytes, param: str, longest_edge: int) -> Pillow.Image:
    """Return the image in ``data`` in RGB, upright, on white, with no side longer than ``longest_edge``.

    An animation gives its first frame.

    Raises:
        InvalidRequest: the file is no image, has another format, or is damaged, cut off or too large.
        MemoryError: there is no memory to decode it.
    """
    if len(data) > MAX_BYTES:
        raise InvalidRequest(f"The image has more than {MAX_BYTES // 2**20} MiB, which is the limit.", param)
    _check_format(data, param)
    try:
        with warnings.catch_warnings():
            # Pillow warns about large sizes, which are checked here.
            warnings.simplefilter("ignore")
            with Pillow.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(*image.size, param)
                # Decodes a JPEG at a reduced size.
                image.draft("RGB", (longest_edge, longest_edge))
                return to_rgb(image, longest_edge)
    except (InvalidRequest, MemoryError):
        raise
    except Pillow.DecompressionBombError:
        raise InvalidRequest(
            f"The image has more than {MAX_PIXELS:,} pixels, which is the limit. Scale it down.", param
        ) from None
    except UnidentifiedImageError:
        if is_supported(data):
            raise InvalidRequest("The image is damaged or cut off in its header. Send the whole file.", param) from None
        raise InvalidRequest(f"The format of the image is not known. Send {_FORMAT_NAMES}.", param) from None
    except Exception as failure:
        if str(failure).startswith(_UNPACKING_ERRORS):
            raise InvalidRequest(
                "The image contains texts or a colour profile that unpack to more than 1 MiB. Save it without them.",
                param,
            ) from None
        # Decoders raise many kinds of exceptions for invalid files.
        raise InvalidRequest(
            f"The image is damaged or cut off ({type(failure).__name__}). Send the whole file.", param
        ) from failure


def _check_format(data: bytes, param: str) -> None:
    """Refuse a file with the signature of another format before any decoder reads it."""
    if not data:
        raise InvalidRequest(f"The image is empty. Send {_FORMAT_NAMES}.", param)
    if (name := unsupported_type(data)) is not None:
        raise InvalidRequest(f"This is {name}, which is not supported. Send {_FORMAT_NAMES}.", param)
    if is_avif(data) and not DECODES_AVIF:
        raise InvalidRequest(
            "This is an AVIF image, which this server's build of Pillow does not decode. "
            f"Send {_FORMAT_NAMES}, or install Pillow from its wheel on the server.",
            param,
        )


def _check_size(width: int, height: int, param: str) -> None:
    if width * height > MAX_PIXELS:
        raise InvalidRequest(
            f"The image has {width} x {height} pixels, more than the limit of {MAX_PIXELS:,}. Scale it down.",
            param,
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidRequest(
            f"The image has {width} x {height} pixels: it is more than {MAX_ASPECT} times as long as it is wide. "
            "Cut it into parts.",
            param,
        )
