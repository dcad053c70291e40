"""Reads the ``X-Forwarded-*`` headers of trusted proxies. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from modelyard.config.hosts import network_of

Headers = list[tuple[bytes, bytes]]


class TrustedProxies:
    """Addresses of proxies whose ``X-Forwarded-*`` headers are used."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [network_of(network) for network in networks]

    def __contains__(self, host: str) -> bool:
        if not self._networks:
            return False
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The original request, as a proxy describes it.

    Attributes:
        client: address of the client; None: unknown.
        scheme: "http" or "https"; None: unknown.
        hosts: the requested hosts; (): unknown.
    """

    client: str | None
    scheme: str | None
    hosts: tuple[bytes, ...]


def forwarded(headers: Headers, trusted: TrustedProxies) -> Forwarded:
    """Return what the headers of a trusted proxy say about the original request.

    Each proxy appends the address of its own client, so the client is the last address that is no trusted proxy: the
    client itself may have written the addresses before it. The last scheme counts, and all hosts count.
    """
    chain = _listed(headers, b"x-forwarded-for")
    client = None
    for written in reversed(chain):
        address = _address(_without_port(written.decode("latin-1")))
        if address is None:
            # Addresses before an invalid one cannot be trusted.
            break
        client = str(address)
        if client not in trusted:
            break
    schemes = [scheme.lower() for scheme in _listed(headers, b"x-forwarded-proto")]
    scheme = schemes[-1].decode("latin-1") if schemes and schemes[-1] in (b"http", b"https") else None
    return Forwarded(client, scheme, tuple(_listed(headers, b"x-forwarded-host")))


def with_hosts(headers: Headers, hosts: Sequence[bytes]) -> Headers:
    """Return ``headers`` with ``hosts`` in place of the Host header of the proxy."""
    return [header for header in headers if header[0] != b"host"] + [(b"host", host) for host in hosts]


def _listed(headers: Headers, wanted: bytes) -> list[bytes]:
    """Return the items of a header that may be a list and may be repeated."""
    items = [item.strip() for name, value in headers if name == wanted for item in value.split(b",")]
    return [item for item in items if item]


def _without_port(written: str) -> str:
    if written.startswith("["):
        return written[1:].partition("]")[0]
    return written.partition(":")[0] if written.count(":") == 1 else written


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    # A dual-stack socket reports IPv4 addresses as IPv4-mapped IPv6 addresses.
    return getattr(address, "ipv4_mapped", None) or address
