"""The syntax of API keys and of their names, and the digest of a key."""

from __future__ import annotations

import hashlib
import re
from typing import Final

MAX_PRIORITY: Final = 100
"""The highest priority that a request may ask for; the lowest is ``-MAX_PRIORITY``."""

KEY_WORDING: Final = "a key, or sha256: and the 64 hexadecimal digits of its digest, in quotes"

NAME_WORDING: Final = "a name of at most 64 letters, digits, dots, dashes and underscores"

_PREFIX: Final = "sha256:"

_DIGEST: Final = re.compile(r"sha256:[0-9a-fA-F]{64}", re.ASCII)

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def check_key(key: str) -> str:
    """Refuse a malformed digest. The message does not repeat it, because it may be a secret.

    Raises:
        ValueError: the message says what is allowed.
    """
    if key.startswith(_PREFIX) and not _DIGEST.fullmatch(key):
        raise ValueError(f"must be {KEY_WORDING}")
    return key


def check_key_name(name: str) -> str:
    """Refuse names that could break a line of a log.

    Raises:
        ValueError: the message says what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"must be {NAME_WORDING}")
    return name


def digest_of(key: str | bytes) -> bytes:
    """Return the SHA-256 of a key, or the digest that ``key`` holds as ``sha256:<hex>``.

    One round without salt is enough for keys that are long and random, and fast enough to compute for each request.
    """
    if isinstance(key, str):
        if _DIGEST.fullmatch(key):
            return bytes.fromhex(key.removeprefix(_PREFIX))
        key = key.encode()
    return hashlib.sha256(key).digest()
