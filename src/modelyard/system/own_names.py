"""The names of this machine."""

from __future__ import annotations

import socket
import threading
from typing import Final

# A resolver that does not answer is not waited for.
LOOKUP_S: Final = 1.0


def own_names() -> frozenset[str]:
    """Names by which others on its network address this machine, in small letters.

    Its host name, that within its domain, and that of multicast DNS.
    """
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return frozenset(filter(None, (name, short, f"{short}.local" if short else "", _full_name(name))))


def _full_name(name: str) -> str:
    found: list[str] = []

    def look_up() -> None:
        found.append(socket.getfqdn(name).lower())

    looking = threading.Thread(target=look_up, name="look up the own name", daemon=True)
    looking.start()
    looking.join(LOOKUP_S)
    return found[0] if found else ""
