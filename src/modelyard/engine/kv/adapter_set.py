"""The adapters that tokens are computed with, as a part of what prefixes are found by. Pure."""

from __future__ import annotations

import hashlib
from typing import Final, TypeAlias

AdapterSet: TypeAlias = tuple[tuple[str, float], ...]
"""Digests of adapters with their scales, in the order of the digests; () for the weights alone."""

NO_ADAPTERS: Final[AdapterSet] = ()

_SALT_BYTES: Final = 16


def adapter_salt(salt: str, adapters: AdapterSet) -> str:
    """Return the salt of tokens that are computed with ``adapters`` for a request with ``salt``.

    KV state is reused between equal salts only, so that no prefix crosses from one set of adapters to another, wherever
    it is kept. It is hexadecimal, as the salts of keys are, so that it can be part of a file's name.
    """
    if not adapters:
        return salt
    facts = "\0".join((salt, *(f"{digest} {scale!r}" for digest, scale in adapters)))
    return hashlib.blake2b(facts.encode(), digest_size=_SALT_BYTES).hexdigest()
