"""The syntax of addresses, host names and origins in a configuration."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

HOST_WORDING: Final = 'a host name without scheme and port, "*." and a name, or "*"'
REQUEST_HOST_WORDING: Final = 'a host name without scheme and port, or "*." and a name'
ORIGIN_WORDING: Final = 'an origin such as "https://chat.example:8443", without a path, or "*"'
NETWORK_WORDING: Final = 'an IP address, or a network such as "10.0.0.0/8"'

_LABELS: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
_HOST: Final = re.compile(rf"\*|(?:\*\.)?{_LABELS}\.?", re.ASCII)
# Any scheme, because browser extensions and desktop applications have origins with schemes of their own.
_ORIGIN: Final = re.compile(r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@]+", re.ASCII)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can connect to ``host``, a name or an IP address without a port."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Whether ``host`` is an IP address, with or without brackets."""
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def network_of(text: str) -> IPv4Network | IPv6Network:
    """Return the network of an address, or of an address with a prefix length."""
    return ip_network(text, strict=False)


def check_host(name: str) -> str:
    """Refuse a pattern that no Host header can match.

    Raises:
        ValueError: the message says what is allowed.
    """
    if not _HOST.fullmatch(name) and not is_address(name):
        raise ValueError(f"must be {HOST_WORDING}")
    return name


def check_request_host(name: str) -> str:
    """Refuse a pattern that no host of a URL can match, and the one that every host matches.

    Raises:
        ValueError: the message says what is allowed.
    """
    if name == "*":
        raise ValueError(f"must be {REQUEST_HOST_WORDING}")
    return check_host(name)


def check_origin(origin: str) -> str:
    """Refuse an origin that no Origin header can match.

    Raises:
        ValueError: the message says what is allowed.
    """
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"must be {ORIGIN_WORDING}")
    return origin


def check_network(text: str) -> str:
    """Refuse what is neither an address nor a network.

    Raises:
        ValueError: the message says what is allowed.
    """
    try:
        network_of(text)
    except ValueError:
        raise ValueError(f"must be {NETWORK_WORDING}") from None
    return text
