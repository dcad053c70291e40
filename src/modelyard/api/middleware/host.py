"""Refuses requests whose Host header is not a name of the server.

Any web page can make its own name resolve to this machine, and then has the same origin as the server (DNS rebinding).
It cannot make the browser send another name in the Host header.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.api.middleware.addresses import authority_of, values_of
from modelyard.api.middleware.refusal import refuse
from modelyard.config import is_loopback
from modelyard.config.hosts import is_address
from modelyard.errors import HostNotAllowed


class HostNames:
    """The names that a server answers to, in addition to loopback names (localhost, 127.0.0.1, ::1).

    Args:
        patterns: names, and patterns such as ``*.example.org`` for all names below one.
        takes_addresses: whether IP addresses count, too: the name of a page is never an IP address.
    """

    def __init__(self, patterns: Iterable[str], *, takes_addresses: bool) -> None:
        lowered = [pattern.lower().rstrip(".").strip("[]") for pattern in patterns]
        self._names = frozenset(lowered)
        self._endings = tuple(pattern[1:] for pattern in lowered if pattern.startswith("*."))
        self._takes_addresses = takes_addresses

    def __contains__(self, host: str) -> bool:
        return (
            host in self._names
            or is_loopback(host)
            or (self._takes_addresses and is_address(host))
            or (bool(self._endings) and host.endswith(self._endings))
        )


def host_names(
    host: str, allowed: Collection[str], own: Collection[str], *, is_mounted: bool, has_keys: bool
) -> HostNames | None:
    """Return the names that a server answers to; None: every name.

    A page whose name resolves to this machine has no API key, so a server with keys needs no list of names unless it
    listens on loopback.

    Args:
        host: the address that the server listens on.
        allowed: ``allowed_hosts`` of the configuration; ``*`` allows all names.
        own: names of the machine.
        is_mounted: whether another server listens, whose names are unknown.
        has_keys: whether requests must carry an API key.
    """
    if "*" in allowed:
        return None
    if is_mounted:
        return HostNames(allowed, takes_addresses=True) if allowed else None
    if is_loopback(host):
        return HostNames((host, *allowed), takes_addresses=False)
    if has_keys and not allowed:
        return None
    return HostNames((host, *own, *allowed), takes_addresses=True)


class CheckHost:
    """Refuses requests with a Host outside ``names``. A client that sends no Host is no browser, and passes."""

    def __init__(self, app: ASGIApp, names: HostNames) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        for sent in values_of(scope, b"host"):
            authority = authority_of(sent)
            if authority is None or authority.host not in self._names:
                name = sent.decode("latin-1") if authority is None else authority.host
                await refuse(HostNotAllowed(name[:253]), scope, receive, send)
                return
        await self._app(scope, receive, send)
