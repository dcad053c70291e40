"""The syntax of the addresses of servers that have a model."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

MAX_ADDRESSES: Final = 64

REMOTE_WORDING: Final = (
    'the base URL of a server, such as "http://host:1234/v1", or a list of different ones; without a user, a query and '
    "a fragment"
)


def read_addresses(value: object) -> object:
    """Return the addresses in ``remote``, a text or a list of texts, without a slash at the end.

    Raises:
        ValueError: it is neither, or one of them is no base URL; the message says what is allowed.
    """
    given = [value] if isinstance(value, str) else value
    if given == () or not isinstance(given, list | tuple):
        return given
    addresses = tuple(_address(text) for text in given)
    if not 1 <= len(addresses) <= MAX_ADDRESSES or len(set(addresses)) < len(addresses):
        raise ValueError(f"must be {REMOTE_WORDING}")
    return addresses


def _address(text: object) -> str:
    """Return one address. A user in it is refused by ``remote_rules``, whose message does not repeat the password."""
    if isinstance(text, str):
        address = text.strip().rstrip("/")
        try:
            parts = urlsplit(address)
            is_address = (
                parts.scheme in ("http", "https")
                and bool(parts.hostname)
                and parts.port != 0
                and not (parts.query or parts.fragment)
                and address.isprintable()
                and " " not in address
            )
        except ValueError:
            is_address = False
        if is_address:
            return address
    raise ValueError(f"must be {REMOTE_WORDING}")
