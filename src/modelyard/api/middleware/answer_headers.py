"""Headers of every answer, also of errors: no sniffing of types, no caching, no use by pages of other origins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

Header = tuple[bytes, bytes]

_NO_SNIFFING: Final[Header] = (b"x-content-type-options", b"nosniff")
_NO_STORE: Final[Header] = (b"cache-control", b"no-store")
_OWN_ORIGIN: Final[Header] = (b"cross-origin-resource-policy", b"same-origin")
# An answer that CORS lets a page read needs no further restriction.
_ALL_ORIGINS: Final[Header] = (b"cross-origin-resource-policy", b"cross-origin")

PRIVATE_HEADERS: Final[Sequence[Header]] = (_NO_SNIFFING, _NO_STORE, _OWN_ORIGIN)


def private_headers(headers: Iterable[Header]) -> Sequence[Header]:
    """Return the headers to add to ``headers``. An answer with a cache-control header of its own keeps it."""
    names = {name for name, _ in headers}
    if b"cache-control" not in names and b"access-control-allow-origin" not in names:
        return PRIVATE_HEADERS
    origin = _ALL_ORIGINS if b"access-control-allow-origin" in names else _OWN_ORIGIN
    return (_NO_SNIFFING, origin) if b"cache-control" in names else (_NO_SNIFFING, _NO_STORE, origin)
