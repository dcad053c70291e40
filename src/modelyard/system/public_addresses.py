"""Resolves names, and decides which addresses are public: the server fetches and connects for clients only there."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Special-use addresses that older versions of ipaddress report as global; Oracle's cloud metadata is there. Source:
# RFC 6890.
_SPECIAL: Final = ipaddress.IPv4Network("192.0.0.0/24")

# IPv4 addresses behind a NAT64 translator. Source: RFC 6052, section 2.1.
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")


async def resolved(host: str, port: int | None) -> tuple[Address, ...]:
    """Return the addresses of a host, at least one. Who limits them checks all: their order is up to the name's owner.

    Raises:
        OSError: its name is not known, or has no address.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a part of the name is empty, or too long
        raise OSError("it is no name of a host") from None
    # Without the zone of a link-local address.
    addresses = tuple(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)
    if not addresses:
        raise OSError("the name has no address")
    return addresses


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet: not this machine, its network, or a cloud's metadata service.

    An IPv6 address that embeds an IPv4 address is public if that is.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if (inner := _embedded(address)) is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    elif address in _SPECIAL:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour
