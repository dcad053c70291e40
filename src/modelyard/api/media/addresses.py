"""Which addresses of the network a server fetches from for strangers. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Of special use, which older versions of the library take for public; Oracle's metadata is there. Source: RFC 6890.
_SPECIAL: Final = ipaddress.IPv4Network("192.0.0.0/24")

# IPv4 behind a translator. Source: RFC 6052, section 2.1.
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether it belongs to a host of the open internet: not this machine, its network, or a cloud's metadata.

    An IPv6 address that carries one of IPv4 is as public as that.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if (inner := _carried(address)) is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    elif address in _SPECIAL:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour
