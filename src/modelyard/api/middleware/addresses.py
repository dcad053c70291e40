"""The headers that say how a request addresses the server, and which page sent it. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from starlette.types import Scope

# Stricter than RFC 3986: no user, no path, no escapes, all of which browsers never send in a Host.
_AUTHORITY: Final = re.compile(rb"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN: Final = re.compile(rb"(?P<scheme>https?)://(?P<authority>[^/?#@\s]+)")

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_WEB_SCHEMES: Final = {"ws": "http", "wss": "https"}


class Authority(NamedTuple):
    """Where a URL leads: a name in small letters, or an address without brackets, and a port where there is one."""

    host: str
    port: int | None


def authority_of(written: bytes) -> Authority | None:
    """What a Host header names; None: it is none."""
    found = _AUTHORITY.fullmatch(written.strip())
    if found is None:
        return None
    host = (found["v6"] or found["name"]).decode("ascii").lower()
    return Authority(host.rstrip(".") or host, None if found["port"] is None else int(found["port"]))


def values_of(scope: Scope, wanted: bytes) -> list[bytes]:
    """All values of a header: a request that has it twice is asked for each of them."""
    return [value for name, value in scope.get("headers", ()) if name == wanted]


def is_own_origin(origin: bytes, scope: Scope) -> bool:
    """Whether a page of ``origin`` came from the server that ``scope`` addresses.

    By its Host, which another check has let pass. Behind a proxy that speaks TLS and is not trusted, the server does
    not know that the page came by HTTPS: then either scheme is its own.
    """
    found = _ORIGIN.fullmatch(origin.lower())
    page = None if found is None else authority_of(found["authority"])
    hosts = [authority_of(host) for host in values_of(scope, b"host")]
    if found is None or page is None or not hosts:
        return False
    scheme = found["scheme"].decode("ascii")
    asked: str = scope.get("scheme", "http")
    if _WEB_SCHEMES.get(asked, asked) == "https" and scheme != "https":
        return False
    wanted = page.host, page.port or _DEFAULT_PORTS[scheme]
    return all(host is not None and (host.host, host.port or _DEFAULT_PORTS[scheme]) == wanted for host in hosts)
