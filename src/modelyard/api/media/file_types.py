"""Detects the type of a file from its first bytes: a supported image, or another type for the error message. Pure."""

from __future__ import annotations

from typing import Final

# Offset, signature and name. The first match counts.
_SIGNATURES: Final = (
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"II+\0", "a TIFF image"),
    (0, b"MM\0+", "a TIFF image"),
    (0, b"\0\0\1\0", "a Windows icon"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL image"),
    (4, b"jP  \r\n\x87\n", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"8BPS", "a Photoshop image"),
    (0, b"PK\3\4", "a ZIP archive or office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"OggS", "sound or video"),
    (0, b"ID3", "sound"),
    (0, b"fLaC", "sound"),
    (8, b"WAVEfmt", "sound"),
    (8, b"AVI LIST", "a video"),
)

# Offset and signature of supported images, except AVIF.
_SUPPORTED: Final = ((0, b"\x89PNG"), (0, b"\xff\xd8\xff"), (0, b"GIF8"), (0, b"BM"), (8, b"WEBP"))

# Signatures of text files, after whitespace and a byte order mark.
_MARKUP: Final = (
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document, such as an SVG drawing"),
    (b"<!doctype svg", "an SVG drawing"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
)
_HEAD_BYTES: Final = 256

# Brands of the ISO base media file format. Source: ISO/IEC 23008-12, annex B; AV1 Image File Format, section 6.
_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIC: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_IMAGES: Final = frozenset({b"mif1", b"mif2", b"msf1", b"miaf"})


def unsupported_type(data: bytes) -> str | None:
    """Return the type of a file that is not supported, such as "a TIFF image"; None if the file may be supported."""
    for offset, signature, name in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return name
    text = data[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for signature, name in _MARKUP:
        if text.startswith(signature):
            return name
    if data[4:8] == b"ftyp" and not is_avif(data):
        major, others = _brands(data)
        if major in _HEIC or (major in _IMAGES and others & _HEIC):
            return "a HEIC image"
        return "a HEIF image" if major in _IMAGES else "a video"
    return None


def is_supported(data: bytes) -> bool:
    """Whether a file has the signature of a supported image."""
    return is_avif(data) or any(data[offset : offset + len(signature)] == signature for offset, signature in _SUPPORTED)


def is_avif(data: bytes) -> bool:
    """Whether a file has the brand of an AVIF image."""
    if data[4:8] != b"ftyp":
        return False
    major, others = _brands(data)
    return major in _AVIF or (major in _IMAGES and bool(others & _AVIF))


def _brands(data: bytes) -> tuple[bytes, frozenset[bytes]]:
    """Return the major brand of a file, and its compatible brands."""
    end = min(int.from_bytes(data[:4]), _HEAD_BYTES)
    return data[8:12], frozenset(data[at : at + 4] for at in range(16, end - 3, 4))
