"""Binds the address of a server."""

from __future__ import annotations

import socket

from modelyard.errors import PortUnavailable


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address. A server that is started on it accepts connections.

    Raises:
        PortUnavailable: the address is in use or does not belong to this machine.
    """
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
