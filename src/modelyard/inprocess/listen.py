"""Binds the addresses of a server."""

from __future__ import annotations

import socket
from typing import Final

from modelyard.errors import PortUnavailable

_LAST_PORT: Final = 65535


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address. A server that is started on it accepts connections.

    Raises:
        PortUnavailable: the address is in use, does not belong to this machine, or has no such port.
    """
    if not (isinstance(port, int) and 0 <= port <= _LAST_PORT):
        # The C library takes other numbers modulo 65536.
        raise PortUnavailable(host, port, f"a port is a whole number from 0 to {_LAST_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise PortUnavailable(host, port, (error.strerror or str(error)).lower()) from error
    return listener


def listen_for_mcp(host: str, port: int | None) -> socket.socket | None:
    """Return a socket bound to ``mcp_port`` of a configuration, on which /mcp alone is served; None: it has none.

    Raises:
        PortUnavailable: as ``listen``.
    """
    if port is None:
        return None
    try:
        return listen(host, port)
    except PortUnavailable as unavailable:
        unavailable.advice = "Choose another mcp_port."
        raise
