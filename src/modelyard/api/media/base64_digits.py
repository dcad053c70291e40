"""Decodes the base64 of data URLs."""

from __future__ import annotations

import base64
import binascii

from modelyard.errors import InvalidRequest


def from_base64(digits: bytes) -> bytes:
    """Return the bytes that ``digits`` encode. Whitespace, which some tools insert, is ignored.

    Raises:
        InvalidRequest: there are characters that are not base64.
    """
    try:
        return base64.b64decode(b"".join(digits.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("What follows the comma of the data URL is not base64.") from None
