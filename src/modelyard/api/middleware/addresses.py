"""Parses the headers Host and Origin. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from starlette.types import Scope

# Stricter than RFC 3986: no user, path or escapes, which browsers never send in a Host header.
_AUTHORITY: Final = re.compile(rb"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN: Final = re.compile(rb"(?P<scheme>https?)://(?P<authority>[^/?#@\s]+)")

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_WEB_SCHEMES: Final = {"ws": "http", "wss": "https"}


class Authority(NamedTuple):
    """Host and port of a URL: a name in lower case or an address without brackets, and a port or None."""

    host: str
    port: int | None


def authority_of(written: bytes) -> Authority | None:
    """Return the host and port of a Host header; None: it is invalid."""
    found = _AUTHORITY.fullmatch(written.strip())
    if found is None:
        return None
    host = (found["v6"] or found["name"]).decode("ascii").lower()
    return Authority(host.rstrip(".") or host, None if found["port"] is None else int(found["port"]))


def values_of(scope: Scope, header: bytes) -> list[bytes]:
    """Return all values of a header: a request may repeat it, and each value must be checked."""
    return [value for name, value in scope.get("headers", ()) if name == header]


def is_own_origin(origin: bytes, scope: Scope) -> bool:
    """Whether ``origin`` is the origin of the server that ``scope`` addresses by its Host header, checked before.

    Behind a TLS proxy that is not trusted, the server does not know that a page came by HTTPS, so both schemes count as
    its own.
    """
    found = _ORIGIN.fullmatch(origin.lower())
    page = None if found is None else authority_of(found["authority"])
    hosts = [authority_of(host) for host in values_of(scope, b"host")]
    if found is None or page is None or not hosts:
        return False
    scheme = found["scheme"].decode("ascii")
    own_scheme: str = scope.get("scheme", "http")
    if _WEB_SCHEMES.get(own_scheme, own_scheme) == "https" and scheme != "https":
        return False
    page_address = page.host, page.port or _DEFAULT_PORTS[scheme]
    return all(host is not None and (host.host, host.port or _DEFAULT_PORTS[scheme]) == page_address for host in hosts)
