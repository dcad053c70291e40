"""Refuses requests that address the server by a name that is not its own.

A page from anywhere can have its own name looked up to lead to this machine, and would then be of one origin with the
server (DNS rebinding); it cannot have its browser send another name.
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
    """The names that a server answers to, beside those of the machine alone (localhost, 127.0.0.1, ::1).

    Args:
        patterns: names, and ``*.example.org`` for all below one.
        takes_addresses: IP addresses too: no page's name can be looked up to be one.
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
    """What a server answers to; None: to every name.

    With keys, a page whose name leads here has none of them, so a server that others reach need not know its names.

    Args:
        host: where it listens.
        allowed: names of the configuration, of which ``*`` is all.
        own: of the machine.
        is_mounted: another server listens, under names that it alone knows.
        has_keys: requests must carry one.
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
    """Lets requests in whose every Host is one of ``names``. What sends none is no browser."""

    def __init__(self, app: ASGIApp, names: HostNames) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        for sent in values_of(scope, b"host"):
            asked = authority_of(sent)
            if asked is None or asked.host not in self._names:
                name = sent.decode("latin-1") if asked is None else asked.host
                await refuse(HostNotAllowed(name[:253]), scope, receive, send)
                return
        await self._app(scope, receive, send)
