"""Headers that every answer has, errors too: it is for whoever asked, as the type that it has, and not to be kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

Header = tuple[bytes, bytes]

_TYPED: Final[Header] = (b"x-content-type-options", b"nosniff")
_NOT_KEPT: Final[Header] = (b"cache-control", b"no-store")
_OWN_ORIGIN: Final[Header] = (b"cross-origin-resource-policy", b"same-origin")
# What CORS lets a page read need not be kept from it by other ways.
_ALL_ORIGINS: Final[Header] = (b"cross-origin-resource-policy", b"cross-origin")

PRIVATE_HEADERS: Final[Sequence[Header]] = (_TYPED, _NOT_KEPT, _OWN_ORIGIN)


def private_headers(headers: Iterable[Header]) -> Sequence[Header]:
    """What is added to ``headers``. An answer that says itself how it may be kept may be kept so."""
    names = {name for name, _ in headers}
    if b"cache-control" not in names and b"access-control-allow-origin" not in names:
        return PRIVATE_HEADERS
    origin = _ALL_ORIGINS if b"access-control-allow-origin" in names else _OWN_ORIGIN
    return (_TYPED, origin) if b"cache-control" in names else (_TYPED, _NOT_KEPT, origin)
