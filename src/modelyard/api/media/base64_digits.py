"""Base64 as data URLs have it."""

from __future__ import annotations

import base64
import binascii

from modelyard.errors import InvalidRequest


def from_base64(digits: bytes) -> bytes:
    """What ``digits`` spell; line breaks and blanks, which some tools put in, are left out.

    Raises:
        InvalidRequest: there is something else than digits.
    """
    try:
        return base64.b64decode(b"".join(digits.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("What follows the comma of the data URL is not base64.") from None
