"""Takes the listening socket of a service manager. Source: systemd, sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

_FIRST_DESCRIPTOR: Final = 3
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def activation_socket(environment: MutableMapping[str, str]) -> socket.socket | None:
    """Return the first listening socket that systemd has passed to this process; None where it has passed none.

    The variables are removed from ``environment``, so that child processes do not use them.
    """
    pid, count, _ = (environment.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdigit() or int(count) < 1:
        return None
    listener = socket.socket(fileno=_FIRST_DESCRIPTOR)
    os.set_inheritable(listener.fileno(), False)
    return listener
