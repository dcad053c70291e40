"""Signatures of thinking blocks.

Anthropic's clients send thinking back only with the signature that it came with. Here a signature proves nothing, since
a client may write any turn of the assistant itself: it is a digest of the text, or, where the client asked for thinking
to be omitted, the text itself, so that the model reads its reasoning again. The text is not compressed: a small body
could otherwise become a large one. Signatures of others are never refused; their text is taken as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

_DIGEST: Final = "mdy1-"
_TEXT: Final = "mdt1-"


def signature_of(thinking: str) -> str:
    """Return the signature of a block that shows its text."""
    digest = hashlib.blake2b(thinking.encode("utf-8", "replace"), digest_size=24).digest()
    return _DIGEST + base64.urlsafe_b64encode(digest).decode()


def sealed(thinking: str) -> str:
    """Return the signature of a block whose text is omitted: ``recalled`` returns the text."""
    return _TEXT + base64.urlsafe_b64encode(thinking.encode("utf-8", "replace")).decode()


def recalled(signature: str) -> str:
    """Return the text in a signature that ``sealed`` made; "" for any other."""
    if not signature.startswith(_TEXT):
        return ""
    try:
        return base64.b64decode(signature[len(_TEXT) :], altchars=b"-_", validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""
