"""Host names of this machine."""

from __future__ import annotations

import socket
import threading
from typing import Final

# Limit of the wait for a resolver that does not answer.
LOOKUP_S: Final = 1.0


def own_names() -> frozenset[str]:
    """Return the names by which other machines address this one, in lower case.

    They are its host name, its fully qualified name, and its name in multicast DNS.
    """
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return frozenset(filter(None, (name, short, f"{short}.local" if short else "", _full_name(name))))


def _full_name(name: str) -> str:
    found: list[str] = []

    def look_up() -> None:
        found.append(socket.getfqdn(name).lower())

    lookup = threading.Thread(target=look_up, name="look up the own name", daemon=True)
    lookup.start()
    lookup.join(LOOKUP_S)
    return found[0] if found else ""
