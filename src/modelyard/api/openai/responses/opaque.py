"""The texts that a client keeps for the server and sends back unread: reasoning, and summaries of conversations.

OpenAI encrypts them, because its clients must not read them. Here a client may read all that its model wrote, so they
are only encoded. A text of another server is recognised, and not read.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal

Kind = Literal["reasoning", "summary"]

_MARK: Final = "modelyard"


def encoded(kind: Kind, text: str) -> str:
    """Return ``text`` in the form of an ``encrypted_content``: ``modelyard.<kind>.<base64 of UTF-8>``."""
    return f"{_MARK}.{kind}.{base64.urlsafe_b64encode(text.encode('utf-8', 'replace')).decode()}"


def decoded(kind: Kind, content: str | None) -> str | None:
    """Return the text of an ``encrypted_content`` of that kind; None: it is another server's, or damaged."""
    beginning = f"{_MARK}.{kind}."
    if content is None or not content.startswith(beginning):
        return None
    try:
        return base64.b64decode(content[len(beginning) :], altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
